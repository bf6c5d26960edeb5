import numpy as np
import pytest
import torch
from cases import CASES, dense_hessian
from linalg_helpers import Diagonal
from quadratics import linear_regression
from torch import nn

import trainvitals as tv
from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.hessian_outliers import over_bulk, over_rank
from trainvitals.diagnostics.linalg.bulk import KrylovSpectrum, find_bulk
from trainvitals.diagnostics.linalg.outliers import count_outliers

WHAT = ("hessian.outliers", "hessian.condition")


def measured(built, what=WHAT, **changes):
    arguments = {"loss": built.loss, "batch": built.batches} | changes
    return tv.measure(built.model, what=what, **arguments)


def dense_spectrum(case):
    built = case.build()
    values = torch.linalg.eigvalsh(dense_hessian(built.model, built.loss, built.batch)).flip(0).numpy()
    size = len(values)
    return KrylovSpectrum(values, np.zeros(size), np.full(size, 1 / size), size, size)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_seen_whole_they_equal_the_same_rule_on_the_dense_spectrum(case):
    spectrum = dense_spectrum(case)
    num_steps = min(spectrum.size, 300)
    found = measured(case.build(), {name: {"num_steps": num_steps} for name in WHAT})
    bulk = find_bulk(spectrum, 1.5)
    outliers, top, ratio = (found[n] for n in ("hessian.outliers", "hessian.condition.top", "hessian.condition.bulk"))
    values = spectrum.values
    assert top.value == pytest.approx(values[0] / values[4], rel=1e-4)
    if spectrum.size <= 300:
        assert outliers.value == bulk.num_outliers
        assert outliers.converged
        assert outliers.details["edge"] == pytest.approx(bulk.edge, rel=1e-6)
        median = np.median(np.abs(values[bulk.num_outliers :]))
        if median < 1e-13:  # half of the weights lie behind dead units
            assert "zero within rounding" in ratio.missing
        else:
            assert ratio.value == pytest.approx(values[0] / median, rel=0.05)
            assert ratio.error == 0
    if case.is_classifier:
        classes = int(case.build().batch[1].max()) + 1
        assert outliers.details["expected"] == (classes - 1, classes)
    else:
        assert "expected" not in outliers.details


@pytest.mark.parametrize("name", ["mlp", "mse", "uneven"])
def test_the_default_number_of_products_says_the_same_or_that_it_is_not_sure(name):
    case = next(c for c in CASES if c.name == name)
    exact = find_bulk(dense_spectrum(case), 1.5).num_outliers
    for seed in range(5):
        found = measured(case.build(), ["hessian.outliers"], seed=seed)["hessian.outliers"]
        assert found.value == exact or not found.converged


def test_linear_regression_on_few_strong_features_has_as_many_outliers():
    x = torch.randn(400, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:, :3] *= 5
    model = nn.Linear(30, 1, bias=False).double()
    found = tv.measure(model, loss=nn.functional.mse_loss, batch=(x, torch.zeros(400, 1).double()), what=WHAT)
    values = torch.linalg.eigvalsh(2 * x.T @ x / 400).flip(0).numpy()
    assert found["hessian.outliers"].value == 3
    assert found["hessian.condition.top"].value == pytest.approx(values[0] / values[4], rel=1e-8)
    assert found["hessian.condition.bulk"].value == pytest.approx(values[0] / np.median(values[3:]), rel=0.05)


def test_the_bulk_ratio_is_within_twice_its_error_in_nine_of_ten_seeds():
    bulk = torch.randn(2000, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    values = torch.cat([bulk, torch.tensor([20.0, 30.0]).double()])
    exact = 30 / float(bulk.abs().median())
    inside = 0
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        spectrum = count_outliers(Diagonal(values), 1.5, generator=generator, num_steps=100, spend_all=True).spectrum
        found = over_bulk(spectrum, 1.5, 1e-12)
        assert found.error < found.value
        inside += abs(found.value - exact) <= 2 * found.error
    assert inside >= 36


def test_the_run_is_shared_and_booked_once():
    both = measured(CASES[0].build())
    alone = measured(CASES[0].build(), ["hessian.condition"])
    assert both["hessian.outliers"].hvps == 100 or both["hessian.condition.top"].hvps == 100
    assert 0 in (both["hessian.outliers"].hvps, both["hessian.condition.top"].hvps)
    assert alone["hessian.condition.top"].hvps == 100
    assert alone["hessian.condition.top"].value == both["hessian.condition.top"].value


def spectrum_of(values, size=None):
    values = np.array(values, dtype=float)
    return KrylovSpectrum(values, np.zeros(len(values)), np.full(len(values), 1 / len(values)), size or len(values), 1)


def test_ratios_that_do_not_exist_say_why():
    with pytest.raises(Missing, match="fewer than k=5"):
        over_rank(spectrum_of([3, 2]), 5, 1e-12)
    with pytest.raises(Missing, match="λ2 = -1 is not positive"):
        over_rank(spectrum_of([3, -1]), 2, 1e-12)
    with pytest.raises(Missing, match="zero within rounding"):
        over_bulk(spectrum_of([3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), 1.5, 1e-12)


def test_a_model_without_upward_curvature_says_so():
    model = nn.Linear(3, 1, bias=False)
    found = tv.measure(model, loss=lambda z, y: z.mean(), batch=(torch.eye(3), torch.zeros(3, 1)), what=WHAT)
    assert "λ1 is not positive" in found["hessian.condition.top"].missing
    assert found["hessian.outliers"].value == 0


def test_an_overflow_says_so():
    built = linear_regression(dtype=torch.float32)[0]
    built.batches[0][:] *= 1e30
    for reading in measured(built).values():
        assert "not finite" in reading.missing


def test_too_few_products_give_no_count_but_the_reason():
    case = next(c for c in CASES if c.name == "cnn_batchnorm")
    found = measured(case.build(), {"hessian.outliers": {"num_steps": 15}})["hessian.outliers"]
    assert found.value is None
    assert "after 15 products; raise num_steps" in found.missing
    assert found.hvps == 15


def test_a_count_that_is_not_verified_is_given_as_not_converged_with_the_doubt():
    x = torch.randn(2000, 1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:, :4] *= 6
    model = nn.Linear(1000, 1, bias=False).double()
    given = {"loss": nn.functional.mse_loss, "batch": (x, torch.zeros(2000, 1).double())}
    what = "hessian.outliers"
    readings = [tv.measure(model, what={what: {"num_steps": m}}, **given)[what] for m in range(10, 14)]
    unsure = [r for r in readings if r.value is not None and not r.converged]
    assert unsure
    for reading in unsure:
        assert reading.value == 4
        assert "raise num_steps" in reading.details["doubt"]


@pytest.mark.parametrize(("name", "options"), [
    ("hessian.outliers", {"separation": 1}), ("hessian.outliers", {"num_steps": 9}), ("hessian.condition", {"k": 1}),
])  # fmt: skip
def test_bad_options_are_told(name, options):
    with pytest.raises(ValueError, match="separation > 1"):
        measured(CASES[0].build(), {name: options})
