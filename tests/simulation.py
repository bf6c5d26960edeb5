"""Training and measuring by a clock of our own: steps, passes and products take the time that they are told to."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field

from trainvitals.probes.agenda import Agenda
from trainvitals.probes.budget import Asked, Budget
from trainvitals.probes.schedule import every


@dataclass
class Metric:
    """What measuring one metric takes, in passes over the probe, and how often it would be measured."""

    family: str
    passes: float
    interval: int
    is_dear: bool = False
    is_momentary: bool = False
    change: float = 1e-3  # relative squares a second
    guess: float = 1.0  # of `passes`, beforehand


# The default preset as counted on the digits CNN (benchmarks/results/metrics_cost.md), in forward passes.
DEFAULT = {
    **{f"forward.{i}": Metric("forward", 0.03, 50) for i in range(10)},
    **{f"features.{i}": Metric("forward", 0.1, 100) for i in range(11)},
    "chance": Metric("forward", 0.05, 1000),
    "grad.norm": Metric("backward", 0.05, 100),
    **{f"grad.{i}": Metric("per sample", 0.3, 100, True) for i in range(3)},
    **{f"light.{i}": Metric("none", 0.02, 10) for i in range(2)},
    **{f"update.{i}": Metric("steps", 0.05, 20, is_momentary=True) for i in range(2)},
    "hessian.top": Metric("products", 10.0, 100, True, guess=60),
    "hessian.bottom": Metric("products", 40.0, 100, True, guess=60),
    "hessian.density": Metric("products", 120.0, 500, True, guess=60),
    "hessian.trace": Metric("products", 30.0, 100, True, guess=60),
    "stability": Metric("products", 0.1, 100, True, guess=60),
}
SHARED = {"forward": 2.0, "backward": 3.0, "per sample": 12.0, "products": 4.0, "steps": 0.3, "none": 0.01}  # passes


@dataclass
class Simulated:
    """What became of a simulated run."""

    measured: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # clock by name
    spent: list[tuple[float, float]] = field(default_factory=list)  # (clock, seconds)
    changes: list[tuple[float, str]] = field(default_factory=list)  # clock and name of each change of an interval
    seconds: float = 0.0
    steps: int = 0
    warning: str | None = None
    intervals: dict[str, int] = field(default_factory=dict)

    def share(self, begin: float = 0.0, end: float | None = None) -> float:
        """Return the share of the wall time between two moments."""
        end = self.seconds if end is None else end
        return sum(s for at, s in self.spent if begin < at <= end) / (end - begin)

    def worst_minute(self, begin: float = 0.0) -> float:
        """Return the largest share of any minute that ends with a measurement, after `begin`."""
        worst, total, first = 0.0, 0.0, 0
        for at, seconds in self.spent:
            total += seconds
            while self.spent[first][0] < at - 60:
                total -= self.spent[first][1]
                first += 1
            worst = max(worst, total / 60) if at >= begin else worst
        return worst


def simulate(
    share,
    step_seconds,
    pass_seconds,
    metrics=None,
    *,
    seconds=300.0,
    hook_seconds=5e-6,
    noise=0.1,
    is_free=True,
    shared=None,
):
    """Train for so many seconds; `step_seconds`, and factors in `pass_seconds`, may be functions of the clock."""
    metrics, shared = metrics or DEFAULT, SHARED if shared is None else shared
    step_of = step_seconds if callable(step_seconds) else lambda now: step_seconds
    pass_of = pass_seconds if callable(pass_seconds) else lambda name, now: pass_seconds
    rng, run, now, hooks = random.Random(0), Simulated(), 0.0, 0.0
    asked = {
        name: Asked(
            m.family, m.interval, is_free, num_passes=m.guess, num_shared=shared[m.family], is_dear=m.is_dear
        )
        for name, m in metrics.items()
    }  # fmt: skip
    budget = Budget(share, asked, now)
    momentary = {name for name, m in metrics.items() if m.is_momentary}
    agenda = Agenda({name: every(m.interval) for name, m in metrics.items()}, budget, metrics, momentary, 0)
    agenda.clock = lambda: now
    step = 0
    while now < seconds:
        before = dict(budget.intervals)
        if momentary:
            agenda.wants_trajectory(step + 1)  # asked before each step of training
        names = [] if agenda.is_quiet(step) else agenda.due(step, now)
        run.changes += [(now, name) for name, interval in budget.intervals.items() if interval != before[name]]
        if names:
            factor = rng.uniform(1 - noise, 1 + noise)
            own = {name: metrics[name].passes * pass_of(name, now) * factor for name in names}
            families = {metrics[name].family: pass_of(name, now) * factor for name in names}
            parts = {family: shared[family] * one for family, one in families.items()}
            cost = sum(own.values()) + sum(parts.values())
            for name in names:
                at = budget.measured_at(name)
                run.measured[name].append(now)
                if at is not None:
                    budget.learn(name, metrics[name].change * (now - at) * rng.uniform(0.5, 1.5), now - at)
            now += cost
            budget.pay(own, parts, now, passed=pass_of("pass", now))
            run.spent.append((now, cost + hooks))
            hooks = 0.0
        now += step_of(now) + hook_seconds
        hooks += hook_seconds
        budget.ledger.charge(hook_seconds, now)
        step += 1
    run.seconds, run.steps, run.warning, run.intervals = now, step, budget.warning, dict(budget.intervals)
    return run
