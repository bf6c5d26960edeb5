"""How systems are compared: each at its cheapest setting that is accurate, in turns, with a count of all work."""

from __future__ import annotations

import gc
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import report
from curvature_models import Task
from curvature_systems.base import Answer, Setting, System
from torch.utils.flop_counter import FlopCounterMode

FIRST_TIMED_SEED = 100  # settings are chosen on seeds 0, 1, …


@dataclass
class Measured:
    """What one system gave on one task over the timed seeds."""

    system: System
    setting: Setting
    seconds: list[float] = field(default_factory=list)  # of the processor
    wall_seconds: list[float] = field(default_factory=list)
    products: list[int] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    flops: int = 0

    @property
    def median_seconds(self) -> float:
        return statistics.median(self.seconds)

    def over(self, other: Measured) -> list[float]:
        """Return the ratio of the seconds to another's, repeat by repeat."""
        return [a / b for a, b in zip(self.seconds, other.seconds, strict=True)]

    def raw(self) -> dict[str, Any]:
        """Return everything as JSON has it; what is not known is null."""
        errors = [error if math.isfinite(error) else None for error in self.errors]
        return {
            "system": self.system.name, "setting": self.setting, "seconds": self.seconds,
            "wall_seconds": self.wall_seconds, "products": self.products, "relative_errors": errors,
            "flops": self.flops or None,
        }  # fmt: skip


def relative_error(values: np.ndarray, exact: np.ndarray) -> float:
    """Return the largest relative error; infinite if a value is missing."""
    if len(values) != len(exact) or not np.isfinite(values).all():
        return math.inf
    return float((np.abs(values - exact) / np.abs(exact)).max())


Case = tuple[Task, np.ndarray]  # a task and the eigenvalues that are right, (k,) descending


def cheapest(
    system: System, cases: Sequence[Case], accuracy: float, seeds: Sequence[int], num_negative: int
) -> Setting | None:
    """Return the setting of fewest products with which all cases and tuning seeds are accurate; None if none is."""
    best: tuple[float, Setting | None] = (math.inf, None)
    for ladder in system.top_settings(num_negative, len(cases[0][1])):
        for setting in ladder:
            counts, accurate = _tried(system, setting, cases, accuracy, seeds)
            if counts[0] >= best[0]:
                break
            if accurate:
                best = statistics.mean(counts), setting
                break
    return best[1]


def _tried(
    system: System, setting: Setting, cases: Sequence[Case], accuracy: float, seeds: Sequence[int]
) -> tuple[list[int], bool]:
    """Return the products of each run up to the first that is not accurate, and whether all are."""
    counts = []
    for seed, (task, exact) in itertools.product(seeds, cases):
        with system.help():
            answer = system.top(task, setting, seed, len(exact))
        system.prepare(task)
        counts.append(answer.num_products)
        if relative_error(answer.values, exact) > accuracy:
            return counts, False
    return counts, True


def interleaved(measured: Sequence[Measured], repeats: int) -> Iterator[tuple[int, Measured]]:
    """Give (repeat, measured) with the order turned round every other repeat."""
    for repeat in range(repeats):
        yield from ((repeat, m) for m in (measured if repeat % 2 == 0 else measured[::-1]))


def timed(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return what a function gives, and its processor and wall seconds: garbage of earlier runs is out of the way.

    With one thread the two are the same on a machine that does nothing else; the first is fair on any other too.
    """
    gc.collect()
    wall, processor = time.perf_counter(), time.process_time()
    found = function()
    return found, time.process_time() - processor, time.perf_counter() - wall


def counted_flops(function: Callable[[], Any]) -> int:
    """Return the floating-point operations of matrix products, convolutions and attention, as torch counts them."""
    counter = FlopCounterMode(display=False)
    with counter:
        function()
    return counter.get_total_flops()


def race(
    task: Task,
    entries: Sequence[Measured],
    repeats: int,
    ask: Callable[[System, Setting, int], Answer],
    error: Callable[[np.ndarray], float],
) -> None:
    """Run all entries in turns on seeds that no setting was chosen on."""
    for repeat, entry in interleaved(entries, repeats):
        seed = FIRST_TIMED_SEED + repeat
        with entry.system.help():
            answer, seconds, wall_seconds = timed(lambda: ask(entry.system, entry.setting, seed))  # noqa: B023
        entry.system.prepare(task)
        entry.seconds.append(seconds)
        entry.wall_seconds.append(wall_seconds)
        entry.products.append(answer.num_products)
        entry.errors.append(error(answer.values))


def count_operations(entries: Sequence[Measured], ask: Callable[[System, Setting, int], Answer], task: Task) -> None:
    """Run all entries once more and count."""
    for entry in entries:
        with entry.system.help():
            entry.flops = counted_flops(lambda: ask(entry.system, entry.setting, FIRST_TIMED_SEED))  # noqa: B023
        entry.system.prepare(task)


def words(setting: Setting) -> str:
    return ", ".join(f"{name} {v:g}" if isinstance(v, float) else f"{name} {v}" for name, v in setting.items())


def geometric_mean(ratios: Sequence[float]) -> float:
    return math.exp(statistics.mean(math.log(r) for r in ratios))


def row(task: Task, entry: Measured, ours: Measured) -> dict[str, Any]:
    """Return a line of the table."""
    return {
        "model": task.label, "system": entry.system.name, "setting": words(entry.setting),
        "worst relative error": f"{max(entry.errors):.1e}", "products": report.spread(entry.products),
        "GFLOP": f"{entry.flops / 1e9:.3g}", "seconds": report.spread(entry.seconds),
        "time / TrainVitals": report.spread(entry.over(ours)),
    }  # fmt: skip
