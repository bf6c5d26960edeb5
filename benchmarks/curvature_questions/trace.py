"""The trace to 1 %, where that can be had; elsewhere the error of an equal number of products."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from functools import cache
from typing import Any

import curvature_reference as reference
import numpy as np
import report
import torch
from curvature_measuring import Measured, geometric_mean, race
from curvature_models import Task, recipes, task
from curvature_report import Section
from curvature_systems import CURVLINOPS, EIGENTHINGS, OURS, PYHESSIAN
from curvature_systems.base import Setting, System

ACCURACY = 0.01
NORMAL_90 = 1.645  # of the errors of an unbiased estimate, 90 % are below so many times their root mean square
NUM_TUNING_SEEDS = 5
GOAL = 0.6  # of the best peer's time
TO_ACCURACY = ("MLP", "GPT-2")  # models on which 1 % takes hundreds of products, not many thousands
SIZES = (60, 120, 240, 480, 960)  # products; divisible by 2 and 3
TOLERANCES = (0.02, 0.01, 0.007, 0.005, 0.0035, 0.0025)
EQUAL_SIZE = 48
MOST_TIMED = 1000  # products; dearer methods are only said to be so

METHODS: list[tuple[System, str]] = [
    (OURS, "auto"), (OURS, "XTrace"), (PYHESSIAN, "Hutchinson"), (CURVLINOPS, "Hutch++"), (CURVLINOPS, "XTrace"),
    (EIGENTHINGS, "Hutch++"),
]  # fmt: skip


def run(quick: bool, repeats: int) -> Section:
    """Return the table and the ratio to the best peer."""
    rows: list[dict[str, Any]] = []
    raw: list[dict[str, Any]] = []
    ratios = []
    for name in recipes(quick):
        exact = exact_trace(name, quick)
        given = task(name, quick=quick)
        to_accuracy = name in TO_ACCURACY and not quick
        settings = {m: _tuned(given, *m, exact.value) if to_accuracy else EQUAL_SIZE for m in METHODS}
        entries = [Measured(system, {"method": method, "size": settings[system, method]})
                   for system, method in METHODS if settings[system, method] is not None]  # fmt: skip
        race(given, entries, repeats, lambda s, setting, seed: s.trace(given, **setting, seed=seed),  # noqa: B023
             lambda values: float(abs(values[0] / exact.value - 1)))  # noqa: B023  # fmt: skip
        ours = min((e for e in entries if e.system is OURS), key=lambda e: e.median_seconds)
        rows += [_row(given, e, ours, to_accuracy, exact) for e in entries]
        rows += [{"model": given.label, "system": system.name, "setting": f"{method}: more than {MOST_TIMED} products"}
                 for (system, method), size in settings.items() if size is None]  # fmt: skip
        raw.append({"model": given.label, "exact": exact.value, "standard_error": exact.standard_error,
                    "systems": [e.raw() for e in entries]})  # fmt: skip
        if to_accuracy:
            best = min((e for e in entries if e.system.is_peer), key=lambda e: e.median_seconds)
            ratios.append(statistics.median(ours.over(best)))
            print(f"{given.label}: {ratios[-1]:.2f} of the time of {best.system.name}", flush=True)
    summary = (
        f"To {ACCURACY:.0%}, geometric mean over {len(ratios)} models of our share of the best peer's time: "
        f"{geometric_mean(ratios):.2f} (goal: at most {GOAL}; "
        f"{'reached' if geometric_mean(ratios) <= GOAL else 'not reached'})."
        if ratios
        else "At an equal number of products only."
    )
    return Section("trace", "Trace of the Hessian", summary, rows, NOTES, {"models": raw, "ratios": ratios})


NOTES = [
    f"To 1 %: 90 % of the errors are below it, taken as {NORMAL_90} times their root mean square over "
    f"{NUM_TUNING_SEEDS} tuning seeds; each method with the fewest products of {', '.join(map(str, SIZES))}, "
    "TrainVitals' `auto` at the loosest tolerance of a list. Timed on other seeds, whose errors are given. "
    f"Hutchinson's number of products follows from the variance of {SIZES[0]} samples.",
    f"Where 1 % would take thousands of products, all make {EQUAL_SIZE}. The standard error of the reference "
    "is of TrainVitals' estimate with many products; 0 where the whole matrix was formed in float64. Times are over "
    "those of the faster of TrainVitals' two methods.",
]


@dataclass(frozen=True)
class Exact:
    value: float
    standard_error: float


@cache
def exact_trace(name: str, quick: bool) -> Exact:
    """Return tr H, exactly where the matrix fits, else by a long run with its standard error."""
    given = task(name, quick=quick)
    if given.num_parameters <= reference.DENSE_UP_TO:
        return Exact(float(reference.dense_eigenvalues(name, quick).sum()), 0.0)
    most = 600 if name in TO_ACCURACY else 200
    reading = given.measure("hessian.trace", seed=12345, tol=ACCURACY / 4, num_deflated=100, max_probes=most)
    return Exact(float(reading.value), float(reading.error))


def _tuned(given: Task, system: System, method: str, exact: float) -> float | None:
    """Return the size with which a method is accurate, or None if that is out of reach."""
    if method == "Hutchinson":
        return _hutchinson_size(given, exact)
    if system is EIGENTHINGS:  # the same algorithm
        system = CURVLINOPS
    return _smallest_size(given.name, system, method, exact)


@cache
def _smallest_size(name: str, system: System, method: str, exact: float) -> float | None:
    given = task(name)
    most = NUM_TUNING_SEEDS * (ACCURACY / NORMAL_90) ** 2  # of the sum of squared errors
    for size in TOLERANCES if method == "auto" else SIZES:
        total = 0.0
        for seed in range(NUM_TUNING_SEEDS):
            with system.help():
                answer = system.trace(given, method, size, seed)
            system.prepare(given)
            total += (answer.values[0] / exact - 1) ** 2
            if total > most:
                break
        else:
            return size
    return None


def _hutchinson_size(given: Task, exact: float) -> float | None:
    torch.manual_seed(0)
    with PYHESSIAN.help():
        samples = [PYHESSIAN.trace(given, "Hutchinson", 1, seed).values[0] for seed in range(SIZES[0])]
    size = math.ceil((NORMAL_90 * statistics.stdev(samples) / (ACCURACY * abs(exact))) ** 2)
    return size if size <= MOST_TIMED else None


def _row(given: Task, entry: Measured, ours: Measured, to_accuracy: bool, exact: Exact) -> dict[str, Any]:
    root_mean_square = math.sqrt(float(np.mean(np.square(entry.errors))))
    return {
        "model": given.label, "reference": f"{exact.value:.4g} ± {exact.standard_error:.2g}",
        "system": entry.system.name, "setting": _words(entry.setting),
        "asked": f"{ACCURACY:.0%}" if to_accuracy else f"{EQUAL_SIZE} products",
        "relative error, rms": f"{root_mean_square:.1e}", "products": report.spread(entry.products),
        "seconds": report.spread(entry.seconds),
        "time / TrainVitals": report.spread(entry.over(ours)),
    }  # fmt: skip


def _words(setting: Setting) -> str:
    dial = f"tol {setting['size']:g}" if setting["size"] < 1 else f"{setting['size']} products"
    return f"{setting['method']}, {dial}"
