import numpy as np
import pytest
import torch
from cases import CASES, dense_hessian
from spectra import exact_spectrum, measured
from torch import nn

import trainvitals as tv
from trainvitals.diagnostics.registry import select

NAMES = ["hessian.top", "hessian.bottom", "hessian.trace", "hessian.density"]
CASE = {case.name: case for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-4), (torch.float32, 1e-2)])
def test_both_ends_equal_the_dense_hessian(case, dtype, tolerance):
    spectrum = exact_spectrum(case)
    readings = measured(case.build(dtype), ["hessian.top", "hessian.bottom"])
    top, bottom = readings["hessian.top"], readings["hessian.bottom"]
    np.testing.assert_allclose(top.value, spectrum[::-1][:5], rtol=tolerance)
    np.testing.assert_allclose(bottom.value, spectrum[:1], rtol=tolerance)
    for reading, expected in ((top, spectrum[::-1][:5]), (bottom, spectrum[:1])):
        assert reading.converged
        assert (np.abs(reading.value - expected) <= reading.error + 1e-5 * np.abs(spectrum).max()).all()
    assert top.keys == ("λ1", "λ2", "λ3", "λ4", "λ5")
    assert bottom.keys == ("λ−1",)


def test_verification_can_be_left_out():
    built = CASE["mlp"].build()
    options = {"hessian.top": {"verify": False}}
    found = [measured(built, ["hessian.top"], options=o)["hessian.top"] for o in ({}, options)]
    np.testing.assert_allclose(found[0].value, found[1].value, rtol=1e-4)
    assert found[1].hvps < found[0].hvps


def test_linear_regression_has_the_closed_form_2_xtx_over_nc_for_each_output():
    x = torch.randn(50, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = nn.Linear(20, 3, bias=False).double()
    gram = np.linalg.eigvalsh((2 * x.T @ x / (50 * 3)).numpy())
    batch = (x, torch.zeros(50, 3).double())
    what = {"hessian.top": {"k": 7}, "hessian.bottom": {"k": 3, "max_iterations": 60}}
    readings = tv.measure(model, loss=nn.functional.mse_loss, batch=batch, what=what)
    expected = np.repeat(gram, 3)  # each eigenvalue three times, once for every output
    np.testing.assert_allclose(readings["hessian.top"].value, expected[::-1][:7], rtol=1e-4)
    np.testing.assert_allclose(readings["hessian.bottom"].value, expected[:3], rtol=1e-3)


class Quadratic(nn.Module):
    """f(x) = θᵀ diag(a) θ / 2: the Hessian is diag(a)."""

    def __init__(self, a):
        super().__init__()
        self.theta = nn.Parameter(torch.ones(len(a), dtype=torch.float64))
        self.register_buffer("a", torch.tensor(a, dtype=torch.float64))

    def forward(self, x):
        return (self.a * self.theta**2).sum() / 2 * torch.ones_like(x)


def quadratic(a, **kwargs):
    batch = (torch.zeros(4, 1).double(), torch.zeros(4, 1).double())
    return tv.measure(Quadratic(a), loss=lambda out, _: out.mean(), batch=batch, **kwargs)


def test_fewer_parameters_than_eigenvalues_asked_for():
    readings = quadratic([3.0, -7.0, 1.0], what=["hessian"])
    np.testing.assert_allclose(readings["hessian.top"].value, [3, 1, -7], atol=1e-12)
    assert readings["hessian.top"].keys == ("λ1", "λ2", "λ3")
    np.testing.assert_allclose(readings["hessian.bottom"].value, [-7], atol=1e-12)
    assert readings["hessian.trace"].value == pytest.approx(-3)
    assert readings["hessian.trace"].error == pytest.approx(0, abs=1e-12)  # a diagonal has no variance
    assert readings["hessian.top"].converged


def test_largest_by_value_when_the_largest_in_size_is_negative():
    readings = quadratic([5.0, -70.0, 1.0, 0.5], what={"hessian.top": {"k": 2}})
    np.testing.assert_allclose(readings["hessian.top"].value, [5, 1], atol=1e-10)


def test_a_flat_loss_has_zero_curvature():
    readings = quadratic([0.0] * 6, what=["hessian"])
    assert readings["hessian.top"].value.tolist() == [0.0] * 5
    assert readings["hessian.top"].converged
    assert readings["hessian.trace"].value == 0


def test_one_lanczos_run_serves_both_ends():
    built = CASE["mlp"].build()
    both = measured(built, ["hessian.top", "hessian.bottom"])
    assert min(both["hessian.top"].hvps, both["hessian.bottom"].hvps) == 0
    assert max(both["hessian.top"].hvps, both["hessian.bottom"].hvps) == both["hessian.top"].details["iterations"]
    alone = measured(built, ["hessian.bottom"])["hessian.bottom"]
    np.testing.assert_allclose(alone.value, both["hessian.bottom"].value, rtol=1e-6)
    assert 0 < alone.hvps <= both["hessian.top"].details["iterations"]


def test_eigenvectors_are_given_when_asked_for_and_are_eigenvectors():
    built = CASE["tied"].build()
    options = {"hessian.top": {"k": 3, "eigenvectors": True, "tol": 1e-6}}
    found = measured(built, ["hessian.top"], options=options)["hessian.top"]
    H = dense_hessian(built.model, built.loss, built.batch).numpy()
    Y = found.details["eigenvectors"]
    assert Y.shape == (len(H), 3)
    np.testing.assert_allclose(H @ Y, Y * found.value, atol=1e-5)
    assert "eigenvectors" not in measured(built, ["hessian.top"])["hessian.top"].details


def test_uneven_batches_equal_one_batch():
    built = CASE["uneven"].build()
    options = {"hessian.top": {"tol": 1e-8}}
    parts = measured(built, ["hessian.top"], options=options)["hessian.top"].value
    whole = tv.measure(built.model, loss=built.loss, batch=built.batch, what=["hessian.top"], options=options)
    np.testing.assert_allclose(parts, whole["hessian.top"].value, rtol=1e-10)


def test_a_budget_too_small_is_not_called_converged():
    options = {"hessian.top": {"max_iterations": 8}}
    found = measured(CASE["mlp"].build(), ["hessian.top"], options=options)["hessian.top"]
    assert found.converged is False
    assert found.hvps == 8


def test_an_overflowed_loss_is_missing_with_the_reason():
    built = CASE["mlp"].build()
    with torch.no_grad():
        next(built.model.parameters()).fill_(float("nan"))
    for name, reading in measured(built, NAMES).items():
        assert reading.value is None, name
        assert "not finite" in reading.missing


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("hessian.top", {"k": 0}, "k ≥ 1"),
        ("hessian.top", {"tol": 0.0}, "tol > 0"),
        ("hessian.bottom", {"max_iterations": 0}, "max_iterations"),
        ("hessian.top", {"engine": "magic"}, "'native', 'pyhessian'"),
    ],
)
def test_bad_options_are_told_before_training(name, options, words):
    with pytest.raises(ValueError, match=words):
        select({name: options})
