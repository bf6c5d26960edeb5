"""Memorised samples against the definition, looked up in the whole history of each sample."""

import pytest
import torch
from fake_snapshot import FakeSnapshot, evaluation

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.memorised import Memorised


def snapshot_of(p):
    """Two classes, label 0, with these probabilities of it."""
    p = torch.as_tensor(p, dtype=torch.float64)
    outputs = torch.stack([p.logit(), torch.zeros(len(p), dtype=torch.float64)], 1)
    return FakeSnapshot(train=evaluation(0.0, outputs, torch.zeros(len(p), dtype=torch.long)))


def over(history, **options):
    diagnostic, found = Memorised(**options), []
    for p in history:
        try:
            found.append(diagnostic.measure(snapshot_of(p)))
        except Missing as reason:
            found.append(str(reason))
    return found


def by_definition(history, i, t, low, high):
    return any(
        history[s - 1][i] <= low and all(history[r][i] >= high for r in range(s, t + 1)) for s in range(1, t + 1)
    )


@pytest.mark.parametrize(("low", "high"), [(None, 0.9), (0.2, 0.7), (0.5, 0.51)])
def test_samples_equal_the_definition(low, high):
    history = torch.rand(14, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    history = torch.where(history > 0.4, history.sqrt(), history)  # jumps up, and staying up, are likely
    found = over(history, low=low, high=high)
    assert found[0] == "this is the first measurement: a jump needs two"
    seen = 0
    for t in range(1, 14):
        expected = [by_definition(history, i, t, 0.5 if low is None else low, high) for i in range(60)]
        assert found[t]["samples"].value.tolist() == expected
        assert found[t]["share"].value == pytest.approx(sum(expected) / 60)
        seen += sum(expected)
    assert seen > 10
    assert found[1]["samples"].keys == tuple(str(i) for i in range(60))


def test_a_slow_rise_is_no_jump_and_a_fall_ends_it():
    history = [[0.1, 0.1, 0.95], [0.6, 0.95, 0.95], [0.95, 0.95, 0.95], [0.95, 0.8, 0.95], [0.95, 0.95, 0.95]]
    flags = [reading["samples"].value.tolist() for reading in over(history)[1:]]
    assert flags == [[0, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_a_network_at_chance_counts_as_low():
    assert over([[0.5], [0.99]])[1]["share"].value == 1.0


def test_missing_with_the_reason():
    diagnostic = Memorised()
    with pytest.raises(Missing, match="not class labels"):
        diagnostic.measure(FakeSnapshot(train=evaluation(0.0, torch.randn(3, 2), torch.randn(3, 2))))
    with pytest.raises(Missing, match="NaN or Inf"):
        diagnostic.measure(snapshot_of([torch.nan]))


@pytest.mark.parametrize("options", [{"low": 0.9}, {"low": -0.1}, {"high": 1.1}, {"high": 0.0}, {"low": float("nan")}])
def test_thresholds_out_of_order_are_refused(options):
    with pytest.raises(ValueError, match="expected 0 <= low < high <= 1"):
        Memorised(**options)
