"""Forgetting events against a count over written-out histories, and on a real run."""

from itertools import pairwise

import pytest
import torch
from fake_snapshot import FakeSnapshot, evaluation
from torch import nn

import trainvitals as tv
from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.forgetting import Forgetting

HISTORIES = [  # of one sample each: right (1) or wrong (0) at each measurement
    [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0], [0, 1, 0, 1, 0, 1],
    [1, 0, 0, 0, 0, 0], [0, 0, 1, 1, 1, 0], [0, 0, 0, 1, 1, 1],
]  # fmt: skip


def snapshot_of(rights):
    labels = torch.arange(len(rights)) % 2
    predicted = torch.where(torch.tensor(rights, dtype=torch.bool), labels, 1 - labels)
    return FakeSnapshot(train=evaluation(0.0, torch.eye(2)[predicted], labels))


def test_events_equal_a_count_over_the_histories():
    diagnostic = Forgetting()
    for t in range(6):
        found = diagnostic.measure(snapshot_of([history[t] for history in HISTORIES]))
        events = [sum(h[s - 1] > h[s] for s in range(1, t + 1)) for h in HISTORIES]
        if t:
            assert found["events"].value.tolist() == events
            assert found["events"].keys == ("0", "1", "2", "3", "4", "5")
            assert found["forgotten"].value == pytest.approx(sum(e > 0 for e in events) / 6)
        else:
            assert "first measurement" in found["events"].missing
            assert "first measurement" in found["forgotten"].missing
        assert found["never_learned"].value == pytest.approx(sum(not any(h[: t + 1]) for h in HISTORIES) / 6)
    assert events == [0, 0, 2, 1, 1, 0]


def test_readings_are_not_rewritten_by_later_measurements():
    diagnostic = Forgetting()
    diagnostic.measure(snapshot_of([1, 1]))
    second = diagnostic.measure(snapshot_of([0, 1]))["events"].value
    diagnostic.measure(snapshot_of([1, 0]))
    assert second.tolist() == [1.0, 0.0]


def test_regression_is_missing_and_leaves_no_state():
    diagnostic = Forgetting()
    with pytest.raises(Missing, match="not class labels"):
        diagnostic.measure(FakeSnapshot(train=evaluation(0.0, torch.randn(3, 2), torch.randn(3, 2))))
    assert "first measurement" in diagnostic.measure(snapshot_of([1, 1]))["events"].missing


def test_outputs_of_nan_are_missing_and_forget_nothing():
    diagnostic = Forgetting()
    diagnostic.measure(snapshot_of([1, 1]))
    with pytest.raises(Missing, match="the outputs hold NaN"):
        diagnostic.measure(FakeSnapshot(train=evaluation(0.0, torch.full((2, 2), torch.nan), torch.tensor([0, 1]))))
    assert diagnostic.measure(snapshot_of([1, 1]))["events"].value.tolist() == [0, 0]


def test_a_run_counts_what_happens_to_its_own_samples(tmp_path):
    torch.manual_seed(0)
    model, x, y = nn.Linear(4, 3), torch.randn(12, 4), torch.arange(12) % 3
    optimizer, loss = torch.optim.SGD(model.parameters(), 5.0), nn.functional.cross_entropy  # it bounces
    rights = []
    with tv.watch(model, optimizer, loss=loss, train=(x, y), store=tmp_path, probes=["forgetting"], every=1) as run:
        for step in range(12):
            rights.append((model(x).argmax(1) == y).tolist())
            pick = torch.arange(step % 3, 12, 3)
            optimizer.zero_grad()
            loss(model(x[pick]), y[pick]).backward()
            optimizer.step()
    rights.append((model(x).argmax(1) == y).tolist())
    expected = [sum(a[i] > b[i] for a, b in pairwise(rights)) for i in range(12)]
    assert sum(expected) > 3
    run = tv.open_run(run.path)
    series = run.series("forgetting.events")
    run.close()
    assert series.loc[series["step"] == 12, "value"].tolist() == expected
