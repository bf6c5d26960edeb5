"""Temperatures against a search over a grid, and labels drawn at a known temperature."""

import math

import numpy as np
import pytest
import torch
from fake_snapshot import FakeSnapshot, evaluation

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.temperature import Temperature, best_temperature


def problem(N=200, C=4, T=1.0, seed=0):
    """Outputs z and labels drawn from softmax(z/T)."""
    generator = torch.Generator().manual_seed(seed)
    z = 3 * torch.randn(N, C, generator=generator, dtype=torch.float64)
    return z, torch.multinomial(torch.softmax(z / T, 1), 1, generator=generator).squeeze(1)


def measured(z, y):
    return Temperature().measure(FakeSnapshot(train=evaluation(0.0, z, y)))["train"]


def nll(z, y, T):
    rows = zip((z / T).tolist(), y.tolist(), strict=True)
    return sum(math.log(sum(math.exp(v) for v in row)) - row[c] for row, c in rows) / len(y)


@pytest.mark.parametrize("T", [0.5, 1.0, 3.0])
def test_no_temperature_of_a_grid_is_better(T):
    z, y = problem(60, T=T)
    found = measured(z, y)
    best = nll(z, y, found.value)
    assert found.details["nll_scaled"] == pytest.approx(best)
    assert found.details["nll"] == pytest.approx(nll(z, y, 1.0))
    grid = [nll(z, y, found.value * math.exp(d)) for d in np.linspace(-2, 2, 41)]
    assert min(grid) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("T", [0.7, 2.5])
def test_the_temperature_that_labels_were_drawn_at_lies_within_its_standard_error(T):
    scores = []
    for seed in range(100):
        found = measured(*problem(400, T=T, seed=seed))
        scores.append((found.value - T) / found.error)
    assert np.mean(np.abs(scores) < 2) > 0.88  # 95 %, less four standard deviations of 100 draws is 86 %
    assert 0.75 < np.std(scores) < 1.25
    assert abs(np.mean(scores)) < 0.5


def test_scaling_outputs_scales_it_and_shifting_rows_changes_nothing():
    z, y = problem()
    one = measured(z, y)
    scaled, shifted = measured(5 * z, y), measured(z + torch.arange(200.0)[:, None], y)
    assert scaled.value == pytest.approx(5 * one.value)
    assert scaled.error == pytest.approx(5 * one.error)
    assert shifted.value == pytest.approx(one.value)
    assert measured(torch.softmax(z, 1), y).value == pytest.approx(one.value)  # probabilities are taken as such


def test_missing_with_the_reason():
    z, _ = problem()
    with pytest.raises(Missing, match="every case is classified right"):
        best_temperature(z, z.argmax(1))
    with pytest.raises(Missing, match="no more of the labels than chance"):
        best_temperature(z, z.argmin(1))
    sure = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    assert "probability of 0" in measured(sure, torch.tensor([0, 1])).missing
    found = Temperature().measure(FakeSnapshot(train=evaluation(0.0, z, torch.randn(200))))
    assert "not class labels" in found["train"].missing
    assert found["heldout"].missing == "no heldout"
    huge = torch.tensor([[0.0, 1e19]] * 4, dtype=torch.float64)  # right 3 times in 4: T = 1e19 / log 3
    with pytest.raises(Missing, match="no temperature between 1e-17 and 1e17"):
        best_temperature(huge, torch.tensor([1, 1, 1, 0]))
    assert measured(torch.tensor([[0.0, 1.0, 0.9]]), torch.tensor([2])).error is None
