"""Ranks and spectra against numpy's eigenvalues, closed forms and the invariances of the definitions."""

import math

import numpy as np
import pytest
import torch
from fake_snapshot import FakeSnapshot

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.feature_rank import (
    EffectiveRank,
    FeatureComponents,
    FeatureCondition,
    FeatureSpectrum,
    ParticipationRatio,
    components_for,
    participation_ratio,
)

ALL = (EffectiveRank, ParticipationRatio, FeatureSpectrum, FeatureComponents, FeatureCondition)
CENTRED = ALL[1:]


def features(N=30, D=6, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(N, D, generator=generator, dtype=torch.float64) * torch.arange(1, D + 1) + 2.0
    return h.to(dtype)


def measured(h, cls, **options):
    reading = cls(**options).measure(FakeSnapshot(features=h))
    return reading.value.tolist() if isinstance(reading.value, torch.Tensor) else reading.value


def reference(h):
    """From eigenvalues of DxD matrices, entry by entry: no singular value decomposition."""
    H = h.double().numpy()
    sigma = np.sqrt(np.clip(np.linalg.eigvalsh(H.T @ H), 0, None))
    p = [s / sigma.sum() for s in sigma]
    lam = sorted(np.linalg.eigvalsh(np.cov(H.T, bias=True)), reverse=True)
    lam = lam[: min(len(H) - 1, H.shape[1])]
    count, held = 0, 0.0
    while held < 0.95 * sum(lam):
        held, count = held + lam[count], count + 1
    return {
        EffectiveRank: math.exp(-sum(x * math.log(x) for x in p if x > 0)),
        ParticipationRatio: sum(lam) ** 2 / sum(x * x for x in lam),
        FeatureSpectrum: [math.sqrt(x) for x in lam],
        FeatureComponents: count,
        FeatureCondition: math.sqrt(lam[0] / lam[-1]),
    }


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.name)
@pytest.mark.parametrize(("N", "D"), [(30, 6), (8, 12), (7, 6)])
def test_numbers_equal_those_of_eigenvalues(cls, N, D):
    h = features(N, D)
    # the square root of eigenvalues of HᵀH leaves half the digits for the smallest singular values
    assert measured(h, cls) == pytest.approx(reference(h)[cls], rel=1e-6)


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.name)
def test_float32_agrees(cls):
    h = features()
    assert measured(h.float(), cls) == pytest.approx(measured(h, cls), rel=1e-5)


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.name)
def test_rotating_scaling_and_repeating_samples_change_nothing(cls):
    h, (Q, _) = features(), np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))
    scale = 3.0 if cls is FeatureSpectrum else 1.0
    expected = (scale * np.array(measured(h, cls))).tolist()
    assert measured(3 * h @ torch.tensor(Q), cls) == pytest.approx(expected, rel=1e-9)
    assert measured(torch.cat([h, h]), cls) == pytest.approx(measured(h, cls), rel=1e-9)


@pytest.mark.parametrize("cls", CENTRED, ids=lambda cls: cls.name)
def test_shifting_features_changes_nothing_that_is_centred(cls):
    h = features()
    assert measured(h + 100, cls) == pytest.approx(measured(h, cls), rel=1e-8)


def test_orthonormal_features_have_full_rank_and_condition_one():
    signs = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])  # centred, orthogonal columns
    found = [measured(signs, cls) for cls in ALL]
    assert found == [pytest.approx(3), pytest.approx(3), pytest.approx([1, 1, 1]), 3, pytest.approx(1)]


def test_one_direction_is_rank_one():
    h = torch.outer(torch.arange(1.0, 9), torch.tensor([1.0, 2.0, -1.0]))
    assert measured(h, EffectiveRank) == pytest.approx(1, abs=1e-5)
    assert measured(h, ParticipationRatio) == pytest.approx(1)
    assert measured(h, FeatureComponents) == 1
    with pytest.raises(Missing, match="vary in 1 of 3 directions"):
        measured(h, FeatureCondition)


def test_a_dead_unit_has_no_condition_and_leaves_the_rest_unchanged():
    h = features()
    dead = torch.cat([h, torch.zeros(30, 1)], 1)
    for cls in (EffectiveRank, ParticipationRatio, FeatureComponents):
        assert measured(dead, cls) == pytest.approx(measured(h, cls))
    with pytest.raises(Missing, match="vary in 6 of 7"):
        measured(dead, FeatureCondition)


def test_options():
    h = features()
    assert len(measured(h, FeatureSpectrum, num=2)) == 2
    assert measured(h, FeatureComponents, share=1.0) == 6
    assert measured(h, FeatureComponents, share=1e-9) == 1
    reading = FeatureSpectrum(num=2).measure(FakeSnapshot(features=h))
    assert reading.keys == ("1", "2")
    assert reading.details["variance"] == pytest.approx(float(h.var(0, correction=0).sum()))
    for wrong in (0, 1.5, True):
        with pytest.raises(ValueError, match="expected a whole number of at least 1"):
            FeatureSpectrum(num=wrong)
    for wrong in (0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="expected 0 < share <= 1"):
            FeatureComponents(share=wrong)


def test_tiny_and_huge_eigenvalues_do_not_over_or_underflow():
    assert participation_ratio(torch.tensor([1e-200, 1e-200], dtype=torch.float64)) == 2.0
    assert participation_ratio(torch.tensor([1e200, 0.0], dtype=torch.float64)) == 1.0
    assert components_for(torch.full((100,), 0.1), 0.95) == 95  # rounding of the sum does not ask for one more


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.name)
@pytest.mark.parametrize(
    ("h", "reason"),
    [
        (torch.zeros(5, 3), "all units of the layer are dead"),
        (torch.full((5, 3), torch.nan), "NaN or Inf"),
        (torch.ones(5), "expected (N, D)"),
        (torch.ones(1, 3), "N >= 2"),
    ],
    ids=["dead", "nan", "numbers", "one sample"],
)
def test_missing_with_the_reason(cls, h, reason):
    with pytest.raises(Missing) as caught:
        measured(h, cls)
    assert reason in str(caught.value)


@pytest.mark.parametrize("cls", CENTRED, ids=lambda cls: cls.name)
def test_constant_features_do_not_vary(cls):
    with pytest.raises(Missing, match="same for every sample"):
        measured(torch.full((7, 3), 0.1) + 3e-8 * torch.randn(7, 3), cls)


def test_without_features_the_reason_is_the_snapshots():
    with pytest.raises(Missing, match="no features"):
        EffectiveRank().measure(FakeSnapshot())
