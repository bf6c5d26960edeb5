"""Spectra against numpy's singular values, known ranks, and what no rotation or scale may change."""

import math

import numpy as np
import pytest
import torch
from cases import CASES
from fake_snapshot import FakeSnapshot

import trainvitals as tv
from trainvitals.diagnostics import weight_spectra
from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.weight_spectra import (
    DeltaSpectrum,
    WeightSpectra,
    effective_rank,
    singular_values,
    stable_rank,
)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(weight):
    """σ by a singular value decomposition, the ranks term by term."""
    W = weight.detach().double().numpy().reshape(len(weight), -1)
    sigma = np.linalg.svd(W, compute_uv=False)
    p = sigma / sigma.sum()
    entropy = -sum(q * math.log(q) for q in p if q > 0)
    return {"sigma_max": sigma.max(), "stable_rank": (W**2).sum() / sigma.max() ** 2,
            "effective_rank": math.exp(entropy)}  # fmt: skip


def measured(weights):
    return WeightSpectra().measure(FakeSnapshot(parameters=weights))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_all_parts_equal_those_of_the_singular_values(case):
    built = case.build()
    readings = tv.measure(built.model, loss=built.loss, batch=built.batch, what=["weights.spectral"])
    matrices = {n: p for n, p in built.model.named_parameters() if p.requires_grad and p.ndim > 1}
    for part in ("sigma_max", "stable_rank", "effective_rank"):
        reading = readings[f"weights.spectral.{part}"]
        assert reading.keys == tuple(matrices)
        assert reading.value.tolist() == pytest.approx([by_hand(p)[part] for p in matrices.values()], rel=1e-9)


@pytest.mark.parametrize("shape", [(5, 40), (40, 5), (12, 12)], ids=str)
def test_singular_values_equal_numpys_down_to_the_rounding_that_is_stated(shape):
    U, V = (torch.linalg.qr(normal(n, min(shape), seed=n))[0] for n in shape)
    sigma = torch.logspace(0, -9, min(shape), dtype=torch.float64)
    found = singular_values({"w": U @ torch.diag(sigma) @ V.T}).values["w"]
    seen = sigma > 1e-6
    assert found[seen].tolist() == pytest.approx(sigma[seen].tolist(), rel=1e-3)  # ε/σ² at the smallest
    assert found[sigma < 1e-8].tolist() == [0.0] * int((sigma < 1e-8).sum())


def test_known_spectra():
    equal = torch.linalg.qr(normal(6, 4))[0] * 3.0  # four equal singular values
    assert stable_rank(torch.linalg.svdvals(equal)) == pytest.approx(4, rel=1e-12)
    assert effective_rank(torch.linalg.svdvals(equal)) == pytest.approx(4, rel=1e-12)
    one = torch.outer(normal(5), normal(7, seed=1))
    assert stable_rank(torch.linalg.svdvals(one)) == pytest.approx(1, rel=1e-12)
    assert effective_rank(torch.linalg.svdvals(one)) == pytest.approx(1, rel=1e-9)
    # σ = 1 and 1/3: p = 3/4 and 1/4
    two = torch.tensor([1.0, 1 / 3], dtype=torch.float64)
    assert stable_rank(two) == pytest.approx(10 / 9, rel=1e-12)
    assert effective_rank(two) == pytest.approx(0.75**-0.75 * 0.25**-0.25, rel=1e-12)


def test_a_kernel_is_the_matrix_of_its_filters():
    kernel = normal(4, 3, 2, 2)
    one, other = measured({"w": kernel}), measured({"w": kernel.reshape(4, 12)})
    for part, reading in one.items():
        assert torch.equal(reading.value, other[part].value)


def test_rotations_change_nothing_and_a_scale_only_the_largest():
    W = normal(6, 9)
    turned = torch.linalg.qr(normal(6, 6, seed=1))[0] @ W @ torch.linalg.qr(normal(9, 9, seed=2))[0]
    plain, rotated, scaled = measured({"w": W}), measured({"w": turned}), measured({"w": -7 * W})
    for part in plain:
        assert float(rotated[part].value) == pytest.approx(float(plain[part].value), rel=1e-12)
        factor = 7 if part == "sigma_max" else 1
        assert float(scaled[part].value) == pytest.approx(factor * float(plain[part].value), rel=1e-12)


def test_vectors_are_passed_over_and_a_zero_matrix_has_no_rank():
    readings = measured({"b": torch.ones(3), "zero": torch.zeros(2, 2), "w": torch.eye(2)})
    assert readings["sigma_max"].keys == ("zero", "w")
    assert readings["sigma_max"].value.tolist() == [0.0, 1.0]
    for part in ("stable_rank", "effective_rank"):
        assert readings[part].keys == ("w",)
        assert readings[part].details["left_out"] == {"zero": "it is zero"}


def test_missing_with_the_reason(monkeypatch):
    for readings, words in [
        (measured({"b": torch.ones(3)}), "the model has no weight matrix"),
        (measured({"w": torch.full((2, 2), torch.nan)}), "w: it holds NaN or Inf"),
    ]:
        assert all(words in reading.missing for reading in readings.values())
    zero = measured({"w": torch.zeros(2, 3)})
    assert zero["sigma_max"].missing is None
    assert "w: it is zero" in zero["stable_rank"].missing
    monkeypatch.setattr(weight_spectra, "MAX_RANK", 2)
    readings = measured({"w": torch.eye(3), "thin": normal(2, 50)})
    assert readings["sigma_max"].keys == ("thin",)
    assert readings["sigma_max"].details["left_out"] == {"w": "its 3 singular values are more than 2"}


def test_the_change_is_the_spectrum_of_the_difference():
    start = {"w": normal(5, 4), "b": normal(5, seed=1), "still": normal(3, 3, seed=2)}
    step = torch.outer(normal(5, seed=3), normal(4, seed=4))
    now = {**start, "w": start["w"] + step}
    readings = DeltaSpectrum().measure(FakeSnapshot(parameters=now, initial_parameters=start))
    assert readings["sigma_max"].keys == ("w", "still")
    assert readings["sigma_max"].value.tolist() == pytest.approx([float(step.norm()), 0.0], rel=1e-12)
    assert readings["effective_rank"].keys == ("w",)
    assert float(readings["effective_rank"].value) == pytest.approx(1, rel=1e-9)
    assert readings["effective_rank"].details["left_out"] == {"still": "it has not moved"}


def test_the_change_needs_a_start_of_the_same_shapes():
    with pytest.raises(Missing, match="no initial_parameters"):
        DeltaSpectrum().measure(FakeSnapshot(parameters={"w": torch.eye(2)}))
    for start in ({}, {"w": torch.eye(3)}):
        with pytest.raises(Missing, match=r"has no 'w' of shape \(2, 2\)"):
            DeltaSpectrum().measure(FakeSnapshot(parameters={"w": torch.eye(2)}, initial_parameters=start))
    unmoved = {"w": torch.eye(2)}
    readings = DeltaSpectrum().measure(FakeSnapshot(parameters=unmoved, initial_parameters=unmoved))
    assert readings["sigma_max"].value.tolist() == [0.0]
    assert "w: it has not moved" in readings["effective_rank"].missing
