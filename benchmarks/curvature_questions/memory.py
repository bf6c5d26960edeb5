"""Peak memory of the cold top five: resident memory above that before the call, each in a process of its own."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import report
import torch
from curvature_measuring import geometric_mean, words
from curvature_models import made, recipes, task, task_of
from curvature_report import Section, results
from curvature_systems import CURVLINOPS, OURS, SYSTEMS
from curvature_systems.base import Setting, System

from curvature_questions.top import tuned

GOAL = 1.3  # of curvlinops' memory
LEAST_PARAMETERS = 50_000  # below that the libraries' own code is larger than what they hold
FIRST_SEED = 100


def run(quick: bool, repeats: int) -> Section:
    """Return the table and the ratio to curvlinops."""
    rows: list[dict[str, Any]] = []
    raw: list[dict[str, Any]] = []
    ratios = []
    for name in recipes(quick):
        given = task(name, quick=quick)
        if not quick and given.num_parameters < LEAST_PARAMETERS:
            continue
        settings = _of_first_table(given.label) or {system: tuned(name, quick, system) for system in SYSTEMS}
        chosen = [(system, setting) for system, setting in settings.items() if setting is not None]
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
            weights = Path(folder) / "weights.pt"
            torch.save(given.model.state_dict(), weights)
            jobs = {
                system: [pool.submit(_in_child, name, quick, system, setting, FIRST_SEED + i, weights)
                         for i in range(min(repeats, 2))]
                for system, setting in chosen
            }  # fmt: skip
            peaks = {system: [job.result() / 2**20 for job in found] for system, found in jobs.items()}
        peer = statistics.median(peaks[CURVLINOPS])
        ratios.append(statistics.median(peaks[OURS]) / peer)
        vector = 4 * given.num_parameters / 2**20
        rows += [{
            "model": given.label, "system": system.name, "setting": words(setting),
            "peak MiB": report.spread(peaks[system]),
            "in vectors of P": f"{statistics.median(peaks[system]) / vector:.3g}",
            "peak / curvlinops": f"{statistics.median(peaks[system]) / peer:.2f}",
        } for system, setting in chosen]  # fmt: skip
        raw.append({"model": given.label, "peak_mib": {system.name: found for system, found in peaks.items()}})
    mean = geometric_mean(ratios)
    summary = (
        f"Geometric mean over {len(ratios)} models of our peak over curvlinops': {mean:.2f}, largest {max(ratios):.2f} "
        f"(goal: at most {GOAL}; {'reached' if max(ratios) <= GOAL else 'not reached'} on all)."
    )
    return Section("memory", "Peak memory of the top five", summary, rows, NOTES, {"models": raw, "ratios": ratios})


NOTES = [
    "Growth of the resident set from just before the call to its highest point within it (Linux, `VmHWM`), for the "
    "settings of the first table: eigenvalues only, no eigenvectors. Each call has a process of its own, in which a "
    "tiny model has gone through the same code before. Blocks above 64 KiB go back to the system at once.",
    f"Models below {LEAST_PARAMETERS:,} parameters are left out: there the growth is that of the libraries' own code.",
]


def _of_first_table(label: str) -> dict[System, Setting]:
    """Return the settings of the last `top` that was saved, if it had this model: choosing them takes minutes."""
    saved = results("top")
    models = [m for m in saved["raw"]["models"] if m["model"] == label] if saved else []
    found = {entry["system"]: entry["setting"] for model in models for entry in model["systems"]}
    return {system: found[system.name] for system in SYSTEMS if system.name in found}


def _in_child(name: str, quick: bool, system: System, setting: Any, seed: int, weights: Path) -> int:
    """Return the peak of one call, in bytes, from a new process."""
    job = {"name": name, "quick": quick, "system": system.name, "setting": setting, "seed": seed,
           "weights": str(weights)}  # fmt: skip
    limits = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "curvature_questions.memory", json.dumps(job)], cwd=Path(__file__).parents[1],
        env={**os.environ, **limits}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"the measurement of {system.name} on {name} failed: {done.stderr[-500:]}")
    return int(done.stdout.splitlines()[-1])


def _measure(job: dict[str, Any]) -> int:
    system = next(s for s in SYSTEMS if s.name == job["system"])
    recipe = recipes(job["quick"])[job["name"]]
    model = made(recipe)
    model.load_state_dict(torch.load(job["weights"], weights_only=True))
    given = task_of(job["name"], recipe, model)
    with system.help():
        system.top(task("transformer", quick=True), job["setting"], seed=0)  # loads what is loaded on first use
        system.prepare(given)
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the highest point starts from here
        before = _status("VmRSS")
        system.top(given, job["setting"], job["seed"])
        return _status("VmHWM") - before


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def main(arguments: Sequence[str]) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print(_measure(json.loads(arguments[0])))


if __name__ == "__main__":
    main(sys.argv[1:])
