import numpy as np
import pytest
import torch
from cases import CASES
from spectra import exact_spectrum, measured

from trainvitals.diagnostics.linalg.density import broadened
from trainvitals.diagnostics.registry import select


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_density_equals_the_broadened_dense_spectrum(case):
    spectrum = exact_spectrum(case)
    options = {"hessian.density": {"num_steps": 40, "broadening": 0.1}}
    found = measured(case.build(), ["hessian.density"], options=options)["hessian.density"]
    width = np.diff(found.details["edges"])
    assert (found.value * width).sum() == pytest.approx(1, abs=1e-8)
    exact = broadened(spectrum, np.full(len(spectrum), 1 / len(spectrum)), found.details["sigma"],
                      found.details["edges"])  # fmt: skip
    assert (np.abs(found.value - exact) * width).sum() < 0.15  # total variation; 2.0 is disjoint
    matters = exact > 0.05 * exact.max()
    assert (np.abs(found.value - exact) <= 3 * found.error + 0.02 * exact.max())[matters].mean() > 0.9
    assert found.details["grid"].shape == found.value.shape == found.error.shape == (400,)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_density_band_covers_the_exactly_broadened_spectrum(case, dtype):
    """The products are the model's own here; `test_density` holds the same over 40 seeds on the dense matrix."""
    built = case.build(dtype)
    spectrum = exact_spectrum(case)
    shares = []
    for seed in range(6):
        found = measured(built, ["hessian.density"], seed=seed)["hessian.density"]
        edges = np.asarray(found.details["edges"])
        exact = broadened(spectrum, np.full(len(spectrum), 1 / len(spectrum)), found.details["sigma"], edges)
        shares.append((np.abs(found.value - exact) <= 2 * found.error + 1e-9 * exact.max()).mean())
        if found.details["exact"]:
            break
    assert np.mean(shares) >= 0.9


def test_a_small_model_takes_a_product_for_each_parameter_and_is_exact():
    case = next(c for c in CASES if c.name == "mse")
    spectrum = exact_spectrum(case)
    found = measured(case.build(), ["hessian.density"])["hessian.density"]
    assert found.hvps == found.details["num_deflated"] == len(spectrum)
    assert found.details["exact"]
    exact = broadened(spectrum, np.full(len(spectrum), 1 / len(spectrum)), found.details["sigma"],
                      found.details["edges"])  # fmt: skip
    np.testing.assert_allclose(found.value, exact, atol=1e-10 * exact.max())


def test_density_is_the_same_whether_or_not_the_top_is_due():
    built = CASES[0].build()
    alone = measured(built, ["hessian.density"])["hessian.density"]
    beside = measured(built, ["hessian.density", "hessian.top"])["hessian.density"]
    np.testing.assert_array_equal(alone.value, beside.value)
    np.testing.assert_array_equal(alone.error, beside.error)


@pytest.mark.parametrize(
    ("options", "words"), [({"engine": "magic"}, "'native', 'pyhessian'"), ({"num_runs": 1}, "num_runs ≥ 2")]
)
def test_bad_options_are_told_before_training(options, words):
    with pytest.raises(ValueError, match=words):
        select({"hessian.density": options})
