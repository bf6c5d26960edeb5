"""Drift of predictions against scipy, over a run."""

import numpy as np
import pytest
import torch
from fake_snapshot import FakeSnapshot, evaluation
from scipy.stats import entropy

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.kl_drift import KlDrift


def outputs(seed, N=30, C=4):
    return torch.randn(N, C, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def measured(diagnostic, z, step=0):
    return diagnostic.measure(FakeSnapshot(step=step, train=evaluation(0.0, z, torch.arange(len(z)) % z.shape[1])))


def divergences(then, now):
    p, q = (torch.softmax(z, 1).numpy() for z in (then, now))
    return [entropy(a, b) for a, b in zip(p, q, strict=True)]


def test_drift_equals_scipys_entropy_at_every_measurement():
    diagnostic, run = KlDrift(), [outputs(seed) for seed in range(4)]
    first = measured(diagnostic, run[0])
    assert "first measurement" in first["initial"].missing
    assert "first measurement" in first["previous"].missing
    for step in (1, 2, 3):
        found = measured(diagnostic, run[step], step * 10)
        for part, then in (("initial", 0), ("previous", step - 1)):
            expected = divergences(run[then], run[step])
            assert found[part].value == pytest.approx(np.mean(expected))
            assert found[part].error == pytest.approx(np.std(expected, ddof=1) / 30**0.5)
            assert found[part].details == {"step": then * 10}


def test_the_same_predictions_have_not_drifted_whatever_the_shift_of_their_outputs():
    diagnostic, z = KlDrift(), outputs(0)
    measured(diagnostic, z)
    for part in measured(diagnostic, z + torch.arange(30.0)[:, None]).values():
        assert part.value == pytest.approx(0.0, abs=1e-12)


def test_it_grows_with_the_square_of_a_small_change():
    z, change = outputs(0), outputs(1)
    drifts = []
    for size in (1e-3, 2e-3):
        diagnostic = KlDrift()
        measured(diagnostic, z)
        drifts.append(measured(diagnostic, z + size * change)["initial"].value)
    assert drifts[1] / drifts[0] == pytest.approx(4.0, rel=0.02)


def test_missing_with_the_reason():
    diagnostic = KlDrift()
    measured(diagnostic, torch.full((4, 2), 0.5))
    gone = measured(diagnostic, torch.tensor([[1.0, 0.0]] * 4))
    assert "probability of exactly 0 now" in gone["initial"].missing
    assert "number of classes has changed" in measured(diagnostic, torch.eye(4))["previous"].missing
    with pytest.raises(Missing, match="NaN or Inf"):
        measured(diagnostic, torch.full((4, 2), torch.nan))
