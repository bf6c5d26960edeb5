"""All conditions on one run: order, failures, health of many healthy runs, speed, and the public call."""

import subprocess
import sys
import time

import numpy as np
import pytest
from synthetic_series import STEPS, autoregressive, facts, learned

import trainvitals as tv
from trainvitals.schema import Reading, Record, Status, VerdictState
from trainvitals.store.writer import RunWriter
from trainvitals.verdicts.condition import Condition, Judgement, conditions
from trainvitals.verdicts.engine import judge
from trainvitals.verdicts.run_facts import RunFacts, Unmeasured
from trainvitals.verdicts.source import MemorySource

LAYERS = ("a", "b", "c", "d", "e", "f")


def made(condition_id, outcome, informational=False, order=50):
    class Made(Condition):
        id = condition_id
        title, says, reads, source, advice = "A title", "It says.", (), "a test", ()
        is_informational, precedence = informational, order

        def judge(self, run):
            if isinstance(outcome, Exception):
                raise outcome
            return Judgement(outcome, "a sentence", since=3, noticed=5, confidence=0.5)

    return Made()


def test_the_worst_comes_first_and_causes_before_what_they_bring_about():
    states = [("b", "healthy"), ("c", "alarm"), ("a", "alarm"), ("d", "watch"), ("e", "unknown")]
    asked = [made(id, VerdictState(state), order=10 if id == "c" else 50) for id, state in states]
    assert [v.condition for v in judge(facts({}), asked)] == ["c", "a", "d", "b", "e"]


def test_what_is_no_illness_is_never_an_alarm():
    (verdict,) = judge(facts({}), [made("a", VerdictState.ALARM, informational=True)])
    assert verdict.state == VerdictState.WATCH


def test_health_has_no_onset():
    (verdict,) = judge(facts({}), [made("a", VerdictState.HEALTHY)])
    assert (verdict.since, verdict.noticed) == (None, None)


def test_what_was_not_measured_and_what_fails_are_unknown_and_hide_nothing(caplog):
    asked = [made("a", Unmeasured("nc1: absent")), made("b", ZeroDivisionError("oh")), made("c", VerdictState.ALARM)]
    found = {v.condition: v for v in judge(facts({}), asked)}
    assert found["a"].state == found["b"].state == VerdictState.UNKNOWN
    assert found["a"].missing == ("nc1: absent",)
    assert "ZeroDivisionError" in found["b"].missing[0]
    assert found["c"].state == VerdictState.ALARM
    assert "'b' failed" in caplog.text


def healthy(seed, steps=STEPS, num_layers=6):
    """A classifier that learns, in the metrics of the default preset; noise of unlike size and memory."""
    rng = np.random.default_rng(seed)
    n, noise, rho = len(steps), rng.uniform(0.005, 0.08), rng.choice([0.0, 0.5, 0.8])

    def wobbling(value, relative=noise):
        relative = min(relative, 0.3)
        return value * np.exp(relative * autoregressive(n, rho, int(rng.integers(1 << 30))))

    over = rng.uniform(50, 500)
    train = wobbling(rng.uniform(0.02, 0.4) + 2.2 * np.exp(-steps / over))
    accuracy = np.clip(1 - train / 2.5, 0.1, 1.0)
    growth = 1 + rng.uniform(0.1, 1.0) * (1 - np.exp(-steps / over))[:, None] * rng.uniform(0.5, 1.5, num_layers)
    layers = LAYERS[:num_layers]
    return {
        "loss.train": (steps, train), "loss.heldout": (steps, wobbling(train * 1.2 + 0.05)),
        "accuracy.train": (steps, accuracy), "accuracy.heldout": (steps, np.clip(accuracy - 0.03, 0.1, 1)),
        "gap.accuracy": (steps, np.full(n, -0.03)),
        "train_loss": (steps, wobbling(train, 4 * noise)),
        "stability.ratio": (steps[::5], wobbling(np.full(n, rng.uniform(0.1, 0.7)))[::5]),
        "grad.successive.gradient": (steps, np.clip(rng.uniform(-0.1, 0.3) + 0.1 * rng.normal(size=n), -1, 1)),
        "update.ratio": (steps, wobbling(np.full(n, 2e-3))[:, None] * np.ones(num_layers), layers),
        "weights.norm.value": (steps, 5 * growth, layers),
        "units.dead": (steps, np.clip(0.08 + 0.02 * rng.normal(size=(n, num_layers)), 0, 1), layers),
        "units.dormant": (steps, np.clip(0.15 + 0.02 * rng.normal(size=(n, num_layers)), 0, 1), layers),
        "rank.effective": (steps, wobbling(14 + 25 * np.exp(-steps / over))),
        "nc1": (steps, wobbling(0.3 + np.exp(-steps / over))), "nc3": (steps, wobbling(np.full(n, 0.8))),
        "nc2.angles_means": (steps, wobbling(np.full(n, 0.3))), "nc2.norms_means": (steps, wobbling(np.full(n, 0.3))),
        "nc4": (steps, wobbling(np.full(n, 0.05))), "softmax_collapse": (steps, np.zeros(n)),
        "learning_rate": (steps, np.full((n, 1), 0.1), ("0",)),
    }  # fmt: skip


@pytest.mark.parametrize("seeds", [range(8), pytest.param(range(8, 60), marks=pytest.mark.slow)], ids=["few", "many"])
def test_healthy_runs_raise_nothing_whatever_their_noise(seeds):
    raised = [
        (seed, v.condition) for seed in seeds for v in judge(facts(healthy(seed)))
        if v.state in (VerdictState.WATCH, VerdictState.ALARM)
    ]  # fmt: skip
    assert raised == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_healthy_run_is_never_ill_on_the_way(seed):
    run = facts(healthy(seed))
    ill = {
        v.condition for step in STEPS[5::4] for v in judge(run.until(int(step)))
        if v.state in (VerdictState.WATCH, VerdictState.ALARM)
    }  # fmt: skip
    assert ill == set()


def test_scaling_steps_or_thinning_measurements_changes_no_state():
    series = healthy(3)
    series["weights.norm.value"] = (STEPS, np.geomspace(5, 80, len(STEPS))[:, None] * np.ones(6), LAYERS)
    slow = {name: (np.asarray(value[0]) * 50, *value[1:]) for name, value in series.items()}
    coarse = {name: (value[0][::2], value[1][::2], *value[2:]) for name, value in series.items()}

    def states(found):
        return {v.condition: v.state for v in judge(facts(found))}

    assert states(slow) == states(series)
    alarms = {condition for condition, state in states(series).items() if state == VerdictState.ALARM}
    assert alarms == {condition for condition, state in states(coarse).items() if state == VerdictState.ALARM}
    assert "weight_norm_growth" in alarms


@pytest.mark.slow
def test_all_conditions_on_100_000_points_a_series_take_less_than_half_a_second():
    steps = np.arange(100_000) * 10
    series = {name: (steps, np.repeat(np.asarray(value[1]), 1000, axis=0), *value[2:])
              for name, value in healthy(0).items() if len(value[0]) == len(STEPS)}  # fmt: skip
    conditions()
    seconds = []
    for _ in range(3):
        started = time.process_time()
        judge(RunFacts(MemorySource(series)))
        seconds.append(time.process_time() - started)
    assert min(seconds) < 0.5


def stored(folder, series):
    writer = RunWriter.create(folder, "a", {}, {})
    for i, step in enumerate(STEPS):
        readings = {}
        for name, (_, value, *keys) in series.items():
            if len(value) == len(STEPS):
                readings[name] = Reading(value=value[i], keys=keys[0] if keys else ())
        writer.append(Record(int(step), 0.0, readings))
    writer.close(Status.FINISHED)
    return tv.open_run(writer.path)


def test_a_run_file_gives_the_verdicts_of_its_series(tmp_path):
    series = {name: value for name, value in healthy(1).items() if len(value[0]) == len(STEPS)}
    series["units.dead"] = (STEPS, np.where(STEPS < 1000, 0.1, 0.9)[:, None] * np.ones(6), LAYERS)
    series["rank.effective"] = (STEPS, np.where(STEPS < 1000, 20.0, 8.0))
    run = stored(tmp_path, series)
    found, expected = tv.verdicts(run), judge(facts(series, chance=False))
    assert [(v.condition, v.state, v.since) for v in found] == [(v.condition, v.state, v.since) for v in expected]
    assert found[0].condition == "dead_units"
    assert found[0].advice
    assert '"condition": "dead_units"' in found[0].to_json()


def test_asked_again_nothing_is_judged_anew_until_points_have_come(tmp_path, monkeypatch):
    run = stored(tmp_path, {"loss.train": (STEPS, learned())})
    first = run.verdicts()
    monkeypatch.setattr("trainvitals.run.judge", lambda facts: pytest.fail("judged anew"))
    assert run.verdicts() == first


def test_the_package_is_the_public_call_and_needs_no_torch():
    code = (
        "import sys, trainvitals as tv; import trainvitals.verdicts.series; assert callable(tv.verdicts);"
        "class_ = type('R', (), {'verdicts': lambda self: ['v']});"
        "assert tv.verdicts(class_()) == ['v']; sys.exit('torch was imported' if 'torch' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
