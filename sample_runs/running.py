"""Run a sample: all its arms with one seed, and its claim."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainvitals.sample_runs.catalogue import Sample, sample

if TYPE_CHECKING:
    import trainvitals as tv
    from trainvitals.sample_runs.claims import Claim


@dataclass(frozen=True)
class Outcome:
    """One seed of one sample."""

    seed: int
    claim: Claim
    runs: dict[str, tv.Run]  # by the name of the arm
    seconds: float  # of the training, measurements included


def run_sample(chosen: Sample, seed: int = 0, store: str | Path = "runs/",
               on_arm: Callable[[str], None] = lambda arm: None) -> Outcome:  # fmt: skip
    """Train all arms of a sample with one seed, and return what its claim says of them.

    The runs are named after the sample and the arm. Small nets train fastest on one thread, so torch is left at one.
    """
    import torch

    torch.set_num_threads(1)
    started = time.perf_counter()
    runs = {}
    for arm, settings in chosen.arms.items():
        on_arm(arm)
        runs[arm] = chosen.train(seed, **settings, store=store, name=f"{chosen.name}-{arm}")
    seconds = time.perf_counter() - started
    return Outcome(seed, chosen.claim(runs), runs, seconds)


def lines_of(outcome: Outcome) -> list[str]:
    """Return an outcome as lines of text."""
    claim = outcome.claim
    figures = [f"  {name}: {value:.4g}" for name, value in claim.figures.items()]
    shown = "shown" if claim.shown else "not shown"
    head = f"{shown} with seed {outcome.seed}: {claim.effect_is} is {claim.effect:.4g}  ({outcome.seconds:.0f} s)"
    return [head, *figures, *(f"  run {run.id}" for run in outcome.runs.values())]


def alone(file: str) -> None:
    """Run a script by itself: `python sample_runs/01_edge_of_stability.py --seed 1`."""
    chosen = sample(Path(file).name)
    parser = argparse.ArgumentParser(description=chosen.title)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", default="runs/", help="folder of the runs; `trainvitals ui` shows it")
    given = parser.parse_args()
    print(chosen.title)
    print("\n".join(lines_of(run_sample(chosen, given.seed, given.store, lambda arm: print(f"training {arm}")))))
