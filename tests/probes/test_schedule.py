"""Schedules say which steps are due, and `every=` is checked before training starts."""

import numpy as np
import pytest

import trainvitals as tv
from trainvitals.diagnostics.base import Needs
from trainvitals.diagnostics.registry import select
from trainvitals.probes.schedule import NEVER, after, as_schedule, dear_of_presets, schedules_for


def test_every_counts_from_step_zero():
    assert [s for s in range(25) if tv.every(10).due(s)] == [0, 10, 20]


def test_log_spaced_has_its_points_in_every_decade():
    schedule = tv.log_spaced(4)
    steps = [s for s in range(100_001) if schedule.due(s)]
    assert {1, 10, 100, 1_000, 10_000, 100_000} <= set(steps)
    for low in (1_000, 10_000):
        assert sum(low <= s < 10 * low for s in steps) == 4


def test_at_steps_are_exact():
    assert [s for s in range(10) if tv.at_steps([3, 7]).due(s)] == [3, 7]


@pytest.mark.parametrize("phrase", [0, -1, 2.5, True, "often"])
def test_a_phrase_that_is_none_is_refused(phrase):
    with pytest.raises(ValueError, match="expected a whole number of steps"):
        as_schedule(phrase)


def test_the_more_particular_name_wins_whatever_the_order():
    diagnostics = select(["hessian", "nc"])
    for phrase in ({"hessian.top": 5, "hessian": 100, "nc": "log"}, {"nc": "log", "hessian": 100, "hessian.top": 5}):
        schedules = schedules_for(diagnostics, phrase)
        assert schedules["hessian.top"] == tv.every(5)
        assert schedules["hessian.trace"] == tv.every(100)
        assert schedules["nc1"] == tv.log_spaced()


def test_without_a_phrase_each_diagnostic_follows_its_own_interval():
    diagnostics = select("full")
    schedules = schedules_for(diagnostics, None)
    assert schedules == {d.name: tv.every(d.interval) for d in diagnostics}


def test_names_that_are_not_measured_are_refused():
    with pytest.raises(ValueError, match=r"got 'nc1' in every=.*measured are"):
        schedules_for(select(["oui"]), {"nc1": 10})
    with pytest.raises(ValueError, match="did you mean"):
        schedules_for(select(["oui"]), {"ouii": 10})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: tv.log_spaced(0), "log_spaced"),
        (lambda: tv.at_steps(5), "at_steps"),  # pyright: ignore[reportArgumentType]
        (lambda: tv.at_steps([-1]), "at_steps"),
    ],
)
def test_a_schedule_that_cannot_be_names_its_own_call(make, words):
    with pytest.raises(ValueError, match=rf"expected .* in {words}"):
        make()


def test_numpy_counts_are_whole_numbers():
    assert tv.every(np.int64(3)) == tv.every(3)


def dear(probes, phrase=None):
    return dear_of_presets(select(probes), probes, phrase)


def test_what_a_preset_brings_and_is_dear_is_told_apart():
    assert {"hessian.top", "grad.coherence"} <= dear("default", 50)
    assert not {"loss.train", "weights.norm", "oui"} & dear("full", 50)
    assert dear("light", 1) == frozenset()


def test_what_is_named_is_not_among_it():
    assert "hessian.top" not in dear("default", {"default": 50, "hessian": 500})
    assert "hessian.top" not in dear(["full", "hessian"], 50)
    assert "hessian.trace" in dear(["full", "hessian.top"], 50)
    assert not {"hessian.top", "sam"} & dear({"hessian.top": {"k": 3}, "sam": {}})


def test_light_holds_nothing_that_needs_a_pass():
    free = Needs.PARAMETERS | Needs.OPTIMIZER_STATE | Needs.TRAJECTORY
    assert [d.name for d in select("light") if d.needs & ~free] == []


def test_schedules_join_and_so_do_phrases():
    joined = tv.every(10) | tv.at_steps([3]) | 4
    assert [s for s in range(13) if joined.due(s)] == [0, 3, 4, 8, 10, 12]
    assert ("log" | tv.at_steps([77])).due(77)
    assert str(joined) == "every 10 steps and at 1 given steps and every 4 steps"
    chosen = schedules_for(select(["oui", "hessian.top"]), {"hessian.top": tv.every(100) | tv.on_spike()})
    assert chosen["hessian.top"].due(100)
    assert not chosen["hessian.top"].due(50)


@pytest.mark.parametrize(
    "schedule",
    [tv.every(7), tv.log_spaced(3), tv.at_steps([2, 30]), tv.every(9) | tv.at_steps([31]), tv.on_epoch_end(5)],
    ids=str,
)
def test_a_schedule_knows_its_next_step(schedule):
    due = [s for s in range(500) if schedule.due(s)]
    for step in range(32):
        following = [s for s in due if s > step]
        assert after(schedule, step) == (following[0] if following else NEVER)


def test_a_schedule_of_the_users_own_is_asked_at_every_step():
    class Mine:
        def due(self, step):
            return step == 5

    assert after(Mine(), 3) == 4
    assert [s for s in range(9) if (tv.every(8) | Mine()).due(s)] == [0, 5, 8]
