"""Active and distinct units against loops and numpy's correlations."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import CASES
from fake_snapshot import FakeSnapshot
from torch import nn

import trainvitals as tv
from trainvitals.diagnostics import unit_sparsity as module
from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.unit_sparsity import UnitSparsity, correlations, distinct_units


def draw(R=40, d=9, seed=0):
    """Rectified units, some of which are mixtures of two, some dead, one a copy and one constant."""
    rng = np.random.default_rng(seed)
    h = rng.normal(size=(R, d))
    h[:, 4] = h[:, 1] * 2 + 0.01 * h[:, 4]
    h[:, 5] = -h[:, 0] + 0.2 * h[:, 5]
    h = np.maximum(h, 0)
    h[:, 2], h[:, 6], h[:, 7] = 0, 3 * h[:, 8], 1.5
    return h


def kept_in_loops(h, threshold):
    """Remove a unit as long as a remaining one is correlated with it, in order."""
    remaining = [j for j in range(h.shape[1]) if (h[:, j] > 0).any()]
    for j in list(remaining):
        for k in remaining:
            deviations = h[:, j].std() * h[:, k].std()
            if k != j and deviations > 1e-12:
                c = ((h[:, j] - h[:, j].mean()) * (h[:, k] - h[:, k].mean())).mean() / deviations
                if abs(c) > threshold:
                    remaining.remove(j)
                    break
    return remaining


def measured(h, axis=-1, **options):
    snapshot = FakeSnapshot(activations={"a": torch.as_tensor(h)}, unit_axes={"a": axis})
    found = UnitSparsity(**options).measure(snapshot)
    return float(found["active"].value[0]), float(found["distinct"].value[0])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("threshold", [0.3, 0.95])
def test_both_shares_equal_loops(seed, threshold):
    h = draw(seed=seed)
    kept = kept_in_loops(h, threshold)
    assert distinct_units(torch.as_tensor(h), threshold).tolist() == kept
    active, distinct = measured(h, correlation=threshold)
    assert active == pytest.approx((h > 0).mean())
    assert distinct == pytest.approx((h[:, kept] > 0).sum() / h.size)


def test_correlations_are_numpys_and_zero_for_constants(monkeypatch):
    h = draw()
    monkeypatch.setattr(module, "_CHUNK_ENTRIES", 30)
    found = correlations(torch.as_tensor(h)).numpy()
    varying = [j for j in range(9) if j not in (2, 7)]
    np.testing.assert_allclose(found[np.ix_(varying, varying)], np.corrcoef(h[:, varying].T), atol=1e-12)
    assert (found[[2, 7]] == 0).all()
    assert (correlations(torch.full((5, 2), 0.1)) == 0).all()  # their mean is not 0.1 to the last digit


def test_scaling_units_and_permuting_samples_changes_nothing():
    h = draw()
    order = np.random.default_rng(1).permutation(len(h))
    assert measured(h[order] * np.arange(1, 10)) == pytest.approx(measured(h))


def test_copies_of_units_are_counted_once():
    h = np.maximum(np.random.default_rng(2).normal(size=(50, 4)), 0)
    active, distinct = measured(np.hstack([h, h]))
    assert active == pytest.approx((h > 0).mean())
    assert distinct == pytest.approx((h > 0).mean() / 2)


def test_channels_are_units_and_positions_are_rows():
    h = np.random.default_rng(3).normal(size=(6, 4, 3, 3))
    rows = h.transpose(0, 2, 3, 1).reshape(-1, 4)
    assert measured(h, axis=1) == pytest.approx(measured(rows))


def test_of_many_rows_and_units_some_are_drawn(monkeypatch):
    h = np.maximum(np.random.default_rng(4).normal(size=(400, 30)), 0)
    monkeypatch.setattr(module, "_MAX_ROWS", 100)
    active, distinct = measured(h, max_units=10)
    assert active == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(100 * 30))  # four standard errors of a fair coin
    assert distinct == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(100 * 10))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_shares_of_models_lie_in_order(case):
    built = case.build()
    readings = tv.measure(built.model, loss=built.loss, batch=built.batch, what=["units.sparsity", "units.dead"])
    active, distinct = (readings[f"units.sparsity.{part}"] for part in ("active", "distinct"))
    assert active.keys == distinct.keys == readings["units.dead"].keys
    assert (distinct.value <= active.value + 1e-12).all()
    assert (active.value <= 1 - readings["units.dead"].value + 1e-12).all()


def test_a_network_by_hand():
    model, x = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).double(), torch.randn(20, 3).double()
    found = tv.measure(model, loss=F.cross_entropy, batch=(x, torch.arange(20) % 2), what=["units.sparsity"])
    share = float((model[0](x) > 0).double().mean())
    assert found["units.sparsity.active"].value.tolist() == pytest.approx([share])


def test_missing_with_the_reason():
    with pytest.raises(Missing, match="no non-linearity"):
        UnitSparsity().measure(FakeSnapshot(activations={}, unit_axes={}))
    with pytest.raises(Missing, match="a: the activations hold NaN or Inf"):
        measured(np.full((4, 3), np.nan))
    assert measured(np.zeros((4, 3))) == (0.0, 0.0)
    for wrong in ({"correlation": 1.0}, {"correlation": 0}, {"max_units": 0}, {"max_units": True}):
        with pytest.raises(ValueError, match=f"got {next(iter(wrong))}="):
            UnitSparsity(**wrong)
