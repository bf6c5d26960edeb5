"""Falls and recoveries after task switches, on scripted accuracies and on a run that forgets."""

import pytest
import torch
import torch.nn.functional as F
from fake_snapshot import FakeSnapshot, evaluation
from torch import nn

import trainvitals as tv
from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.task_switches import TaskSwitches


def of(share):
    y = torch.zeros(100, dtype=torch.long)
    return evaluation(0.0, torch.eye(2)[(torch.arange(100) >= round(100 * share)).long()], y)


def run(diagnostic, rows):
    """Readings at each (step, accuracy by set), None where all is missing."""
    found = []
    for step, shares in rows:
        snapshot = FakeSnapshot(step=step, heldout_sets={name: of(share) for name, share in shares.items()})
        try:
            found.append(diagnostic.measure(snapshot))
        except Missing:
            found.append(None)
    return found


def by_hand(rows, switch, tolerance):
    """Everything from the whole course at once, for one set."""
    before = [a for t, a in rows if t <= switch][-1]
    since = [(t, a) for t, a in rows if t > switch]
    low = min(a for _, a in since)
    first_low = next(i for i, (_, a) in enumerate(since) if a == low)
    back = [t for t, a in since[first_low:] if a >= before - tolerance]
    if low >= before - tolerance:  # it was never away
        back = [since[0][0]]
    return before, before - low, low, back[0] - switch if back else None


@pytest.mark.parametrize("seed", range(8))
def test_every_part_equals_the_whole_course_at_once(seed):
    generator = torch.Generator().manual_seed(seed)
    accuracies = [share / 100 for share in torch.randint(40, 100, (30,), generator=generator).tolist()]
    rows = [(5 * i, a) for i, a in enumerate(accuracies)]
    diagnostic = TaskSwitches(switches=[40, 90], tolerance=0.05)
    found = run(diagnostic, [(t, {"old": a}) for t, a in rows])
    assert found[:9] == [None] * 9  # steps up to 40 belong to the first task
    for i in range(9, 30):
        switch = 40 if rows[i][0] <= 90 else 90
        before, depth, low, steps = by_hand(rows[: i + 1], switch, 0.05)
        reading = found[i]
        assert reading["accuracy"].value.tolist() == pytest.approx([before])
        assert reading["accuracy"].details == {"switch": switch, "before_step": switch}
        assert reading["gap.depth"].value.tolist() == pytest.approx([depth])
        assert reading["gap.lowest"].value.tolist() == pytest.approx([low])
        if steps is None:
            assert "not back yet" in reading["gap.recovery"].missing
        else:
            assert reading["gap.recovery"].value.tolist() == [steps]


def test_sets_have_courses_of_their_own():
    rows = [(0, {"a": 0.9, "b": 0.5}), (10, {"a": 0.4, "b": 0.6}), (20, {"a": 0.9, "b": 0.7})]
    *_, middle, last = run(TaskSwitches(switches=[5]), rows)
    assert middle["gap.recovery"].keys == ("b",)
    assert middle["gap.recovery"].details["left_out"] == {"a": "its accuracy is not back yet"}
    assert last["gap.recovery"].value.tolist() == [15.0, 5.0]
    assert last["gap.depth"].value.tolist() == pytest.approx([0.5, -0.1])


def test_a_run_that_learns_a_second_task_forgets_the_first(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(120, 6)
    old, new = (x, (x[:, 0] > 0).long()), (x, (x[:, 0] < 0).long())
    model = nn.Linear(6, 2)
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    with tv.watch(
        model, optimizer, loss=F.cross_entropy, train=old, heldout={"old": old, "new": new}, store=tmp_path,
        probes={"task": {"switches": [20]}, "heldout": {}}, every=1,
    ):  # fmt: skip
        for step in range(40):
            inputs, targets = old if step < 20 else new
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
    with tv.open_run("latest", store=tmp_path) as recorded:
        course = recorded.series("heldout.accuracy").query("key == 'old'").set_index("step")["value"]
        depth = recorded.series("task.gap.depth").query("key == 'old'").set_index("step")["value"].dropna()
    assert depth.index.tolist() == list(range(21, 41))
    assert depth[40] == pytest.approx(course[20] - course[21:].min())
    assert depth[40] > 0.5


def test_missing_with_the_reason():
    with pytest.raises(Missing, match="no switches of task were given"):
        TaskSwitches().measure(FakeSnapshot())
    diagnostic = TaskSwitches(switches=[10, 20])
    with pytest.raises(Missing, match="no heldout_sets"):
        diagnostic.measure(FakeSnapshot(step=5))
    regression = FakeSnapshot(step=5, heldout_sets={"a": evaluation(0.0, torch.zeros(4, 1), torch.randn(4, 1))})
    with pytest.raises(Missing, match="a: not a classifier"):
        diagnostic.measure(regression)
    with pytest.raises(Missing, match="no task has been switched so far"):
        diagnostic.measure(FakeSnapshot(step=10, heldout_sets={"a": of(0.5)}))
    with pytest.raises(Missing, match="nothing was measured"):
        TaskSwitches(switches=[10]).measure(FakeSnapshot(step=11, heldout_sets={"a": of(0.5)}))


@pytest.mark.parametrize("options", [{"switches": [-1]}, {"tolerance": 1.0}], ids=str)
def test_options_that_make_no_number_are_refused(options):
    with pytest.raises(ValueError, match="in options of 'task'"):
        TaskSwitches(**options)
