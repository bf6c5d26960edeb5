"""Series made by formula, for conditions tested without a training run."""

from __future__ import annotations

import numpy as np

from trainvitals.schema import VerdictState
from trainvitals.verdicts.run_facts import RunFacts
from trainvitals.verdicts.source import MemorySource

STEPS = np.arange(0, 2000, 20)  # as the default preset measures a loss
CHANCE = float(np.log(10))
FIRED = (VerdictState.WATCH, VerdictState.ALARM)


def learned(steps=STEPS, start=2.3, end=0.1, over=300.0, noise=0.02, seed=0):
    """A loss that falls as it should, with a relative noise."""
    rng = np.random.default_rng(seed)
    return (end + (start - end) * np.exp(-steps / over)) * (1 + noise * rng.normal(size=len(steps)))


def white(n, seed=0):
    return np.random.default_rng(seed).normal(size=n)


def autoregressive(n, rho, seed=0):
    """Noise of deviation 1 that remembers a share rho of itself from point to point."""
    shocks, y = np.random.default_rng(seed).normal(size=n) * np.sqrt(1 - rho**2), np.empty(n)
    y[0] = shocks[0] / np.sqrt(1 - rho**2)
    for i in range(1, n):
        y[i] = rho * y[i - 1] + shocks[i]
    return y


def facts(series, meta=None, **more):
    """A run of these series; chance level and classes are added unless `chance=False`."""
    series = dict(series)
    if more.pop("chance", True):
        series.setdefault("chance.loss", ([0], [CHANCE]))
        series.setdefault("chance.accuracy", ([0], [0.1]))
        series.setdefault("chance.num_classes", ([0], [10.0]))
    return RunFacts(MemorySource(series, meta or {}, **more))


def states_of_a_replay(condition, run, steps):
    """The state at each of the steps, as a live reader would have seen it; consecutive repeats taken out."""
    found = [condition.judge(run.until(int(step))).state for step in steps]
    return [state for i, state in enumerate(found) if i == 0 or state != found[i - 1]]
