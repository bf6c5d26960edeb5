import numpy as np
import pytest
import torch
from cases import CASES, dense_hessian
from dense_operators import dense_fisher, dense_gauss_newton
from quadratics import linear_regression

import trainvitals as tv

DENSE = {"ggn.top": dense_gauss_newton, "fisher.top": dense_fisher}
every_matrix = pytest.mark.parametrize("name", DENSE)
every_metric = pytest.mark.parametrize("name", [*DENSE, "ggn.residual"])


def measured(built, what, **changes):
    arguments = {"loss": built.loss, "batch": built.batches} | changes
    return tv.measure(built.model, what=what, **arguments)


@every_matrix
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-4), (torch.float32, 1e-2)], ids=["f64", "f32"])
def test_equals_the_dense_matrix(name, case, dtype, tolerance):
    built = case.build()
    expected = np.linalg.eigvalsh(DENSE[name](built.model, built.loss, built.batch).numpy())[::-1][:5]
    found = measured(case.build(dtype), {name: {"tol": tolerance / 10}})[name]
    np.testing.assert_allclose(found.value, expected, rtol=tolerance, atol=1e-5 * expected[0])
    assert (np.abs(found.value - expected) <= found.error + 1e-5 * expected[0]).all()
    assert found.converged
    assert found.hvps > 0
    assert found.keys == ("λ1", "λ2", "λ3", "λ4", "λ5")


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_the_residual_has_both_ends_of_hessian_minus_gauss_newton(case):
    built = case.build()
    G = dense_gauss_newton(built.model, built.loss, built.batch)
    exact = np.linalg.eigvalsh((dense_hessian(built.model, built.loss, built.batch) - G).numpy())
    found = measured(case.build(), {"ggn.residual": {"k": 2, "tol": 1e-5}})["ggn.residual"]
    assert found.keys == ("λ1", "λ2", "λ−1", "λ−2")
    expected = np.array([exact[-1], exact[-2], exact[0], exact[1]])
    np.testing.assert_allclose(found.value, expected, rtol=1e-4, atol=1e-5 * np.abs(exact).max())
    assert exact[0] < 0 < exact[-1]
    assert found.converged


def test_the_residual_of_a_linear_model_is_zero():
    found = measured(linear_regression()[0], ["ggn.residual", "hessian.top"])
    assert np.abs(found["ggn.residual"].value).max() <= 1e-10 * found["hessian.top"].value[0]


def test_of_linear_regression_in_closed_form():
    built, theta, H, _ = linear_regression()
    found = measured(built, {"ggn.top": {"k": 6}, "fisher.top": {"k": 6}})
    np.testing.assert_allclose(found["ggn.top"].value, np.linalg.eigvalsh(H.numpy())[::-1], rtol=1e-8)
    x, y = built.batch
    G = 2 * (x @ theta - y[:, 0])[:, None] * x  # (N, P)
    np.testing.assert_allclose(found["fisher.top"].value, np.linalg.eigvalsh((G.T @ G / len(G)).numpy())[::-1],
                               rtol=1e-8)  # fmt: skip


@every_metric
def test_with_forward_it_says_why_not(name):
    built = CASES[0].build()

    def forward(model, batch):
        z = model(batch[0])
        return z, built.loss(z, batch[1])

    assert "forward=" in measured(built, [name], loss=None, forward=forward)[name].missing


def test_fisher_needs_a_mean_over_samples_and_gauss_newton_does_not():
    built = CASES[0].build()
    built.loss = torch.nn.CrossEntropyLoss(reduction="sum")
    found = measured(built, ["ggn.top", "fisher.top"])
    assert "is not the mean of its samples' losses" in found["fisher.top"].missing
    assert found["ggn.top"].missing is None


@every_metric
def test_an_overflow_says_so(name):
    built = linear_regression(dtype=torch.float32)[0]
    built.batches[0][:] *= 1e30
    assert "not finite" in measured(built, [name])[name].missing


@every_metric
def test_bad_options_are_told(name):
    with pytest.raises(ValueError, match="expected k ≥ 1"):
        measured(CASES[0].build(), {name: {"k": 0}})
