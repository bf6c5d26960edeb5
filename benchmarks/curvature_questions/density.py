"""The spectral density from 80 products, four runs of twenty: seconds, and distance from the exact density."""

from __future__ import annotations

import statistics
from typing import Any

import curvature_reference as reference
import numpy as np
import report
from curvature_measuring import FIRST_TIMED_SEED, Measured, geometric_mean, race
from curvature_models import Task, recipes, task
from curvature_report import Section
from curvature_systems import OURS, PEERS, PYHESSIAN, SYSTEMS
from curvature_systems.base import Answer

from trainvitals.diagnostics.linalg.density import broadened

NUM_RUNS, NUM_STEPS = 4, 20
GOAL = 0.6  # of the best peer's time


def run(quick: bool, repeats: int) -> Section:
    """Return the table and the ratio to the best peer."""
    rows: list[dict[str, Any]] = []
    raw: list[dict[str, Any]] = []
    ratios, to_running = [], []
    for name in recipes(quick):
        given = task(name, quick=quick)
        entries = [Measured(system, {}) for system in SYSTEMS]
        race(given, entries, repeats, lambda system, _, seed: Answer(
            system.density(given, NUM_RUNS, NUM_STEPS, seed).nodes, NUM_RUNS * NUM_STEPS), lambda _: np.nan)  # noqa: B023  # fmt: skip
        dense = given.num_parameters <= reference.DENSE_UP_TO
        quality = _distances(given, reference.dense_eigenvalues(name, quick), repeats) if dense else {}
        ours = entries[0]
        best = min(entries[1:], key=lambda e: e.median_seconds)
        ratios.append(statistics.median(ours.over(best)))
        running = min((e for e in entries[1:] if e.system is not PYHESSIAN), key=lambda e: e.median_seconds)
        to_running.append(statistics.median(ours.over(running)))
        rows += [{
            "model": given.label, "system": e.system.name, "products": NUM_RUNS * NUM_STEPS,
            "seconds": report.spread(e.seconds), "time / TrainVitals": report.spread(e.over(ours)),
            "L1 distance from exact": report.spread(quality[e.system.name]) if dense else "not known",
        } for e in entries]  # fmt: skip
        raw.append({"model": given.label, "systems": [e.raw() for e in entries], "l1_distances": quality})
        print(f"{given.label}: {ratios[-1]:.2f} of the time of {best.system.name}", flush=True)
    mean = geometric_mean(ratios)
    summary = (
        f"Geometric mean over {len(ratios)} models of our share of the fastest peer's time: {mean:.2f} (goal: at most "
        f"{GOAL}; {'reached' if mean <= GOAL else 'not reached'}), at an equal number of products; of the "
        f"fastest peer that runs as shipped {geometric_mean(to_running):.2f}."
    )
    title = f"Density of {NUM_RUNS * NUM_STEPS} Lanczos steps"
    return Section("density", title, summary, rows, NOTES, {"models": raw, "ratios": ratios, "to_running": to_running})


def _distances(given: Task, eigenvalues: np.ndarray, repeats: int) -> dict[str, list[float]]:
    """Return ∫|ρ − ρ_exact| over the timed seeds: all with the σ and the cells that TrainVitals took."""
    found: dict[str, list[float]] = {system.name: [] for system in SYSTEMS}
    for seed in range(FIRST_TIMED_SEED, FIRST_TIMED_SEED + repeats):
        reading = given.measure("hessian.density", seed, num_runs=NUM_RUNS, num_steps=NUM_STEPS)
        edges, sigma = reading.details["edges"], reading.details["sigma"]
        exact = broadened(eigenvalues, np.full(len(eigenvalues), 1 / len(eigenvalues)), sigma, edges)
        densities = {OURS.name: np.asarray(reading.value)}
        for peer in PEERS:
            with peer.help():
                quadrature = peer.density(given, NUM_RUNS, NUM_STEPS, seed)
            densities[peer.name] = broadened(quadrature.nodes, quadrature.weights, sigma, edges)
        for name, density in densities.items():
            found[name].append(float(np.abs(density - exact) @ np.diff(edges)))
    return found


NOTES = [
    f"Every system makes {NUM_RUNS} runs of {NUM_STEPS} products. The distance is the integral of |ρ − ρ_exact|, "
    "between 0 and 2, where all eigenvalues are known; every system's nodes are broadened alike, with the width that "
    "TrainVitals chose.",
    "PyHessian's `density()` calls `torch.eig`, which torch has removed: as shipped it fails on every model. It is "
    "timed with that function put back. curvlinops is timed by `fast_lanczos` (without reorthogonalisation), as its "
    "own density function spends further products on the ends of the spectrum.",
]
