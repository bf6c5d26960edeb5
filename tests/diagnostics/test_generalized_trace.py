import pytest
import torch
from cases import CASES
from dense_operators import dense_fisher, dense_gauss_newton

import trainvitals as tv

every_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)


def measured(built, what, **changes):
    arguments = {"loss": built.loss, "batch": built.batches} | changes
    return tv.measure(built.model, what=what, **arguments)


@every_case
def test_fisher_trace_is_that_of_the_dense_matrix(case):
    built = case.build()
    expected = float(dense_fisher(built.model, built.loss, built.batch).trace())
    assert measured(case.build(), ["fisher.trace"])["fisher.trace"].value == pytest.approx(expected, rel=1e-9)


@every_case
def test_gauss_newton_trace_lies_within_its_error_of_the_dense_matrix(case):
    built = case.build()
    expected = float(dense_gauss_newton(built.model, built.loss, built.batch).trace())
    found = measured(case.build(), {"ggn.trace": {"tol": None, "max_probes": 48}})["ggn.trace"]
    assert abs(found.value - expected) <= 3.5 * found.error
    assert found.error < 0.2 * expected
    assert found.hvps == found.details["num_probes"] == 48


@pytest.mark.slow
def test_gauss_newton_trace_lies_within_twice_its_error_in_nine_of_ten_seeds():
    built = CASES[7].build()
    expected = float(dense_gauss_newton(built.model, built.loss, built.batch).trace())
    found = [measured(built, ["ggn.trace"], seed=seed)["ggn.trace"] for seed in range(40)]
    assert sum(abs(f.value - expected) <= 2 * f.error for f in found) >= 36
    assert all(f.error <= 0.05 * f.value for f in found if f.converged)
    assert len({f.value for f in found}) == 40


def test_what_is_undefined_says_why():
    built = CASES[0].build()

    def forward(model, batch):
        z = model(batch[0])
        return z, built.loss(z, batch[1])

    assert "forward=" in measured(built, ["ggn.trace"], loss=None, forward=forward)["ggn.trace"].missing
    built.loss = torch.nn.CrossEntropyLoss(reduction="sum")
    assert "is not the mean" in measured(built, ["fisher.trace"])["fisher.trace"].missing


def test_bad_options_are_told():
    with pytest.raises(ValueError, match="expected 2 ≤ min_probes"):
        measured(CASES[0].build(), {"ggn.trace": {"min_probes": 1}})
