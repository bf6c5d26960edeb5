"""A watched run under a budget, by a clock of our own: what it measures, when, and what it says that it spent."""

import os
import sys
import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trainvitals as tv
from trainvitals.diagnostics.missing import Missing
from trainvitals.probes import watch as watch_module
from trainvitals.probes.asking import asked_of
from trainvitals.probes.schedule import schedules_for
from trainvitals.schema import Reading

OURS = os.path.dirname(watch_module.__file__)
STEP_SECONDS = 0.01
PRICES = {"hessian.top": 0.2, "hessian.trace": 0.3, "grad.successive": 0.002}  # of all others: a millisecond


class Clock:
    """Stands still unless it is told to move on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()

    def take_readings(subject, diagnostics, *, step, trajectory, on_error, meter):
        readings = {}
        for diagnostic in diagnostics:
            with meter.of(diagnostic.name):
                clock.now += PRICES.get(diagnostic.name, 0.001)
                found = Reading(value=1.0 + 0.01 * step)
                if diagnostic.name.startswith("grad.successive"):
                    try:
                        trajectory()
                    except Missing as reason:
                        found = Reading.absent(str(reason))
            readings |= dict.fromkeys(diagnostic.descriptions(), found)
        return readings

    monkeypatch.setattr(time, "perf_counter", clock)
    monkeypatch.setattr(watch_module, "take_readings", take_readings)
    return clock


def trained(tmp_path, clock, num_steps, **options):
    torch.manual_seed(0)
    model, x, y = nn.Linear(4, 3), torch.randn(12, 4), torch.arange(12) % 3
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with tv.watch(model, optimizer, loss=F.cross_entropy, train=(x, y), store=tmp_path, **options) as run:
        for _ in range(num_steps):
            clock.now += STEP_SECONDS
            optimizer.step()  # there is no gradient: nothing but the hooks
    return tv.open_run(run.id, store=tmp_path)


def steps_of(run, name):
    return run.series(name)["step"].unique().tolist()


def test_dear_ones_come_seldom_and_the_run_says_what_was_spent(tmp_path, clock):
    with trained(tmp_path, clock, 6000, probes=["loss.train", "hessian.top", "hessian.trace"], budget="5%") as run:
        assert run.meta["budget"] == 0.05
        assert steps_of(run, "loss.train")[:3] == [0, 50, 100]
        assert 5 <= len(steps_of(run, "hessian.top")) < 6000 // 100
        shares = run.series("probe.share")["value"]
        assert 0.02 < shares.iloc[-1] <= 0.06
        assert run.series("probe.share_of_last_minute")["value"].iloc[-1] <= 0.06
        seconds = run.series("probe.seconds")["value"].sum()
        assert 0.02 < seconds / (clock.now - 1000.0) <= shares.iloc[-1]  # that of its last point


def test_the_schedule_it_chose_is_in_the_run(tmp_path, clock):
    with trained(tmp_path, clock, 6000, probes=["loss.train", "hessian.top"], budget="4%") as run:
        chosen = run.series("probe.interval")
        last = chosen[chosen["key"] == "hessian.top"]["value"].iloc[-1]
        measured = steps_of(run, "hessian.top")
        changed = chosen["step"].max()
        assert last > 100
        assert [step for step in measured if step > changed] == [s for s in range(changed + 1, 6001) if s % last == 0]
        prices = run.series("probe.price")
        assert prices[prices["key"] == "hessian.top"]["value"].iloc[-1] == pytest.approx(0.2, rel=0.01)
        assert len(set(chosen["step"])) < len(set(run.series("probe.seconds")["step"])) / 2  # told when it changes


def test_a_schedule_of_ones_own_is_followed_exactly(tmp_path, clock):
    for budget in (None, "auto"):
        with trained(tmp_path, clock, 500, probes=["hessian.top"], every=200, budget=budget) as run:
            assert run.meta["budget"] is None
            assert steps_of(run, "hessian.top") == [0, 200, 400]


def test_what_is_dear_in_a_preset_is_paced_and_the_rest_follows_the_schedule(tmp_path, clock):
    with trained(tmp_path, clock, 600, probes="default", every=20) as run:
        due = list(range(0, 601, 20))
        assert run.meta["budget"] == 0.05
        assert steps_of(run, "loss.train") == steps_of(run, "weights.norm.value") == due
        assert 1 <= len(steps_of(run, "hessian.top")) < len(due)


def test_copies_for_trajectories_are_made_only_where_they_can_be_paid_and_never_late(tmp_path, clock):
    with trained(tmp_path, clock, 2000, probes=["grad.successive", "hessian.top"], budget="1%") as run:
        assert 2 < len(steps_of(run, "grad.successive.update")) < 2000 // 20
        assert run.missing("grad.successive.update")["step"].tolist() == [0]  # never measured without its copies


def test_a_budget_that_is_too_small_is_one_warning(tmp_path, clock, monkeypatch):
    monkeypatch.setitem(PRICES, "hessian.top", 3.0)
    with pytest.warns(RuntimeWarning, match=r"expected a budget .*'hessian.top'.* leave 'hessian.top' out") as caught:
        run = trained(tmp_path, clock, 15_000, probes=["loss.train", "hessian.top"], budget="1%")
    assert len(caught) == 1
    assert (run.events()["kind"] == "warning").sum() == 1
    run.close()


def test_nothing_due_is_little_work(tmp_path, clock):
    model, x, y = nn.Linear(4, 3), torch.randn(12, 4), torch.arange(12) % 3
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    seen = []

    def count(frame, event, argument):
        if event == "call" and frame.f_code.co_filename.startswith(OURS):
            seen.append(frame.f_code.co_name)

    for budget in (None, "5%"):
        with tv.watch(model, optimizer, loss=F.cross_entropy, train=(x, y), store=tmp_path, budget=budget) as run:
            for _ in range(3):
                run._before_step(optimizer, (), {})
                run._after_step(optimizer, (), {})
            seen.clear()
            sys.setprofile(count)
            run._before_step(optimizer, (), {})
            run._after_step(optimizer, (), {})
            sys.setprofile(None)
        assert 3 <= len(seen) <= 20, seen  # our Python functions: a few microseconds


def test_verdicts_weigh_and_dear_needs_are_known_before_they_are_measured():
    from trainvitals.diagnostics.registry import select

    diagnostics = select("default")
    schedules = schedules_for(diagnostics, None)
    asked = asked_of(diagnostics, schedules, {d.name for d in diagnostics}, is_free=True)
    assert asked["loss.train"].weight == 2.0  # overfitting, divergence, plateaus
    assert asked["oui.v2"].weight == 1.0
    assert asked["hessian.top"].num_passes > asked["grad.coherence"].num_passes > 0
    assert asked["hessian.top"].is_dear
    assert not asked["loss.train"].is_dear
    assert asked["update.ratio"].is_free is False  # its copies begin a step ahead
    assert asked["loss.train"].interval == 50
    logs = schedules_for(diagnostics, "log")
    assert asked_of(diagnostics, logs, {"loss.train"}, is_free=False)["loss.train"].interval is None
