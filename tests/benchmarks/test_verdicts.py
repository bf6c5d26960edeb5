"""The bank's labels, scores and naive rules on runs made by hand; slow: two real trainings, judged end to end."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from verdict_bank.early import Level, lead, set_level  # noqa: E402
from verdict_bank.naive import RULES, Rule  # noqa: E402
from verdict_bank.report import early_report, table  # noqa: E402
from verdict_bank.scoring import Answer, Score, agreement, score, scores, total, wilson  # noqa: E402
from verdict_bank.setting import FIRED, FOR_REPORT, FOR_THRESHOLDS, Expected, Truth  # noqa: E402
from verdict_bank.training import Entry, train  # noqa: E402
from verdict_bank.truths import after, crossing, overfits, turn  # noqa: E402
from verdicts import settings  # noqa: E402

import trainvitals as tv  # noqa: E402
from trainvitals.verdicts.condition import conditions  # noqa: E402

STEPS = np.arange(0, 1000, 5)


def truth(**columns):
    return Truth({"step": STEPS.tolist(), **{name: np.asarray(v, float).tolist() for name, v in columns.items()}})


def entry(labels=None, **more):
    base = Entry("a", FOR_REPORT, 0, "a.sqlite", 1000, False, (), (), labels or {}, {})
    return replace(base, **more)


# Labels ---------------------------------------------------------------------------------------------


def test_the_turn_of_a_heldout_loss_is_inside_its_window():
    window = turn(truth(test_loss=1 + np.abs(STEPS - 400) / 300))
    assert window is not None
    assert window[0] <= 400 <= window[1]
    assert window[1] - window[0] < 400


@pytest.mark.parametrize("loss", [np.exp(-STEPS / 200), 1 + np.exp(-STEPS / 100) + 0.02 * np.sin(STEPS)])
def test_a_loss_that_falls_or_stays_did_not_turn(loss):
    assert turn(truth(test_loss=loss)) is None
    assert overfits(truth(test_loss=loss)) == {}


def test_a_rise_that_is_taken_back_is_no_turn_for_good():
    assert turn(truth(test_loss=np.exp(-STEPS / 1000) + np.exp(-(((STEPS - 400) / 80) ** 2)))) is None


def test_a_crossing_runs_from_the_low_to_the_high_level_with_a_little_room():
    first, last = crossing(truth(x=STEPS / 1000), "x", 0.2, 0.5)
    assert 170 <= first <= 200
    assert 500 <= last <= 530


def test_what_never_reaches_the_high_level_is_not_labelled():
    assert after("label_noise", "x", 0.2, 0.5)(truth(x=0.4 * STEPS / 1000)) == {}


# Scores ---------------------------------------------------------------------------------------------


LABELLED = entry({"overfitting": Expected(FIRED, (100, 200))})


@pytest.mark.parametrize(
    ("answer", "found", "inside"),
    [
        (Answer("alarm", 150, 300), 1, 1),
        (Answer("watch", 250, 300), 1, 0),
        (Answer("healthy"), 0, 0),
        (Answer("unknown"), 0, 0),
    ],
)
def test_a_labelled_condition_counts_as_found_and_as_placed(answer, found, inside):
    s = score("overfitting", LABELLED, answer)
    assert (s.num_expected, s.num_found, s.num_placed, s.num_inside) == (1, found, found, inside)
    assert s.num_unknown == (answer.state == "unknown")


def test_the_delay_is_counted_from_the_end_of_the_window():
    assert score("overfitting", LABELLED, Answer("alarm", 150, 300)).delay == pytest.approx(0.1)


def test_on_healthy_runs_each_condition_that_was_measured_is_checked():
    run = entry(is_healthy=True, unjudged=("label_noise",))
    answers = {
        "overfitting": Answer("watch", 1, 1),
        "dead_units": Answer("healthy"),
        "spikes": Answer("unknown"),
        "label_noise": Answer("alarm", 1, 1),
        "neural_collapse": Answer("watch", 1, 1),
    }
    s = total(scores([run], {run.path: answers}).values())
    assert (s.num_checked, s.num_false) == (2, 1)  # unknown, left unjudged and informational ones aside


def test_of_a_look_alike_only_what_it_names_is_judged():
    run = entry(quiet=("overfitting",))
    s = total([score("overfitting", run, Answer("alarm", 1, 1)), score("dead_units", run, Answer("alarm", 1, 1))])
    assert (s.num_alike, s.num_alike_false, s.num_checked) == (1, 1, 0)


def test_sums_add_up_and_nothing_is_nan_not_zero():
    assert (Score(num_expected=2, num_found=1) + Score(num_expected=2, num_found=2)).recall == 0.75
    assert np.isnan(Score().recall)


def test_the_interval_of_a_share_holds_it_and_covers():
    rng = np.random.default_rng(0)
    draws = rng.binomial(30, 0.9, 2000)
    covered = [low <= 0.9 <= high for low, high in (wilson(int(d), 30) for d in draws)]
    assert 0.93 <= np.mean(covered) <= 0.985  # nominal 0.95; of 30 draws only some values exist


def test_agreement_counts_settings_with_several_seeds():
    one, two = (replace(LABELLED, seed=s, path=str(s)) for s in (0, 1))
    assert agreement([one, two], {"0": {"overfitting": Answer("alarm")}, "1": {"overfitting": Answer("watch")}}) == (
        0,
        1,
    )


def test_an_entry_survives_its_file():
    assert Entry.from_json(LABELLED.to_json()) == LABELLED


# Naive rules and early signs ------------------------------------------------------------------------


def points(values):
    return lambda name: pd.DataFrame({"step": range(len(values)), "key": "", "value": values})


def test_a_naive_rule_says_since_when_without_a_break():
    rule = Rule("above 1", "x", lambda v: v > 1)
    assert rule(points([0.0, 2.0, 0.0, 2.0, 2.0])) == Answer("alarm", 3, 3)
    assert rule(points([0.0, 2.0, 0.0])) == Answer("healthy")
    assert replace(rule, is_event=True)(points([0.0, 2.0, 0.0])) == Answer("alarm", 1, 1)
    assert rule(points([])) == Answer("unknown")


def test_every_condition_has_a_naive_rule_beside_it():
    assert set(RULES) == {condition.id for condition in conditions()}


def test_a_level_is_passed_by_a_tenth_of_the_healthy_runs_at_most():
    healthy = [pd.Series(np.linspace(0, h, 10)) for h in np.linspace(0, 1, 20)]
    overfit = [(pd.Series(np.linspace(0, 5, 100)), 50)]
    level = set_level(healthy, overfit)
    found = lead(level, healthy, overfit)
    assert found.num_false <= 2
    assert found.leads[0] > 0.5


def test_a_sign_that_comes_after_the_turn_is_no_lead():
    assert lead(Level(True, 4.0), [], [(pd.Series(np.linspace(0, 5, 100)), 50)]).leads == ()


def test_with_too_few_runs_the_early_report_says_so():
    assert "Too few" in early_report([], {})


def test_a_table_has_a_line_for_each_row():
    assert table([{"a": 1, "b": 2}]).splitlines() == ["| a | b |", "| --- | --- |", "| 1 | 2 |"]


# The bank -------------------------------------------------------------------------------------------


def test_the_bank_has_what_was_promised_in_both_halves():
    bank = settings()
    assert sum(len(s.seeds) for s in bank) >= 80
    assert sum(len(s.seeds) for s in bank if s.is_healthy) >= 30
    seeds = {half: {seed for s in bank if s.half == half for seed in s.seeds} for half in (FOR_THRESHOLDS, FOR_REPORT)}
    assert not seeds[FOR_THRESHOLDS] & seeds[FOR_REPORT]


def test_every_condition_has_a_look_alike_or_healthy_runs_that_must_not_show_it():
    named = {condition for s in settings() for condition in s.quiet}
    assert named <= {condition.id for condition in conditions()}
    assert len(named) >= 15


@pytest.mark.slow
def test_a_healthy_training_raises_no_alarm_and_overfitting_is_found_at_its_turn(tmp_path):
    bank = {s.name: s for s in settings()}
    calm = train(bank["mixture-gd"], 0, tmp_path)
    found = {v.condition: v for v in tv.verdicts(tv.open_run(calm.path))}
    assert [c for c, v in found.items() if v.state == "alarm"] == []

    fault = train(bank["over-mixture-logs"], 1, tmp_path)
    verdict = {v.condition: v for v in tv.verdicts(tv.open_run(fault.path))}["overfitting"]
    window = fault.labels["overfitting"].onset
    assert verdict.state in FIRED
    assert window[0] <= verdict.since <= window[1]
