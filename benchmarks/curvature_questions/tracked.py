"""λmax every ten steps of a training at a relative error of 1e-2: tracked, against a cold start on the same weights."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import dataclass
from typing import Any

import curvature_reference as reference
import numpy as np
import torch
from curvature_measuring import FIRST_TIMED_SEED, Case, cheapest, relative_error, timed, words
from curvature_models import Recipe, Task, made, recipes, task_of, train
from curvature_report import Section
from curvature_systems import SYSTEMS
from curvature_systems.base import System
from torch import nn

import trainvitals as tv
from trainvitals.store.moment import Moment
from trainvitals.store.schema_sql import Field
from trainvitals.store.source import open_file

METRIC = "hessian.tracked"
OPTIONS: dict[str, Any] = {}
ACCURACY = 1e-2
EVERY = 10
NUM_STEPS = {"MLP": 300, "CNN": 150, "GPT-2": 150}
GOAL = 6  # products a measurement, in the mean
NUM_TUNING = 4  # checkpoints, spread over the training


@dataclass(frozen=True)
class Tracked:
    """What a watched training gave at its checkpoints."""

    checkpoints: list[nn.Module]
    steps: list[int]
    values: np.ndarray  # (n,) λmax
    products: np.ndarray  # (n,)
    seconds: np.ndarray  # (n,)


def run(quick: bool, repeats: int) -> Section:
    """Return the table and the products of a measurement."""
    rows: list[dict[str, Any]] = []
    raw: list[dict[str, Any]] = []
    products: dict[str, float] = {}
    warm: dict[str, float] = {}
    for name in ["MLP"] if quick else NUM_STEPS:
        recipe = recipes(quick)[name]
        found = _watched(recipe, 30 if quick else NUM_STEPS[name])
        cases = [_case(name, recipe, model) for model in found.checkpoints]
        label = f"{cases[0].task.label}, {len(cases)} measurements"
        errors = [relative_error(found.values[i : i + 1], case.exact) for i, case in enumerate(cases)]
        products[name], warm[name] = float(found.products.mean()), float(found.products[1:].mean())
        rows.append(_row(label, "TrainVitals, tracked", f"every {EVERY} steps", errors, found.products, found.seconds))
        raw.append({"model": label, "system": "tracked", "steps": found.steps, "products": found.products.tolist(),
                    "errors": errors, "exact": [float(c.exact[0]) for c in cases]})  # fmt: skip
        for system in SYSTEMS:
            rows.append(_cold(label, system, cases))
            raw.append(rows[-1])
    reached = max(products.values()) <= GOAL
    summary = (
        "Mean products a measurement: "
        + ", ".join(f"{name} {count:.1f}" for name, count in products.items())
        + f" (goal: at most {GOAL}; {'reached' if reached else 'not reached'} on all). Without the first, cold one: "
        + ", ".join(f"{name} {count:.1f}" for name, count in warm.items())
        + "."
    )
    title = f"λmax every {EVERY} steps at a relative error of {ACCURACY:g}"
    return Section("tracked", title, summary, rows, NOTES, raw)


NOTES = [
    f"`{METRIC}` in a watched training with Adam from the start, first measurement (cold) included, against a cold "
    "start of each system on the same weights, at the setting of fewest products that was accurate on "
    f"{NUM_TUNING} of the checkpoints; on the others it is run, with another seed. The reference is float64, dense or "
    "Lanczos at 1e-8. Seconds here are on the wall.",
]


@dataclass(frozen=True)
class _Case:
    task: Task
    exact: np.ndarray  # (1,)
    num_negative: int


def _watched(recipe: Recipe, num_steps: int) -> Tracked:
    """Train from the start under `tv.watch`, and keep the weights of every measurement."""
    model = made(recipe)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    subject = dict(task_of("", recipe, model).subject)
    batch, watched = subject.pop("batch"), subject.pop("model")
    checkpoints = [copy.deepcopy(model)]

    def keep(step: int) -> None:
        if step % EVERY == 0:
            checkpoints.append(copy.deepcopy(model))

    with tempfile.TemporaryDirectory() as folder:
        with tv.watch(watched, optimizer, train=batch, **subject, store=folder, every=EVERY, budget=None,
                      probes={METRIC: OPTIONS}) as run:  # fmt: skip
            model.train()
            train(model, recipe, num_steps, optimizer, keep)
        recorded = tv.open_run(run.id, store=folder)
        series = recorded.series(METRIC).groupby("step", sort=True).first()
        with open_file(recorded.path) as source:
            products = Moment(source).points(METRIC, Field.HVPS).value
    return Tracked(checkpoints, list(series.index), series["value"].to_numpy(), products, series["seconds"].to_numpy())


def _case(name: str, recipe: Recipe, model: nn.Module) -> _Case:
    values, num_negative = reference.lanczos_top(task_of(name, recipe, copy.deepcopy(model), torch.float64), 1, 1e-8)
    return _Case(task_of(name, recipe, model), values, num_negative)


def _cold(label: str, system: System, cases: list[_Case]) -> dict[str, Any]:
    chosen = set(np.linspace(0, len(cases) - 1, NUM_TUNING).round().astype(int).tolist())
    tuning: list[Case] = [(cases[i].task, cases[i].exact) for i in sorted(chosen)]
    setting = cheapest(system, tuning, ACCURACY, [0], max(c.num_negative for c in cases))
    if setting is None:
        return {"model": label, "system": f"{system.name}, cold", "setting": f"none reached {ACCURACY:g}"}
    rest = [case for i, case in enumerate(cases) if i not in chosen] or cases
    errors, products, seconds = [], [], []
    for case in rest:
        with system.help():
            answer, _, taken = timed(lambda: system.top(case.task, setting, FIRST_TIMED_SEED, k=1))  # noqa: B023
        system.prepare(case.task)
        errors.append(relative_error(answer.values, case.exact))
        products.append(answer.num_products)
        seconds.append(taken)
    return _row(label, f"{system.name}, cold", words(setting), errors, products, seconds)


def _row(label: str, system: str, setting: str, errors: Any, products: Any, seconds: Any) -> dict[str, Any]:
    return {
        "model": label, "system": system, "setting": setting, "worst relative error": f"{max(errors):.1e}",
        "share within 1e-2": f"{np.mean(np.array(errors) <= ACCURACY):.0%}",
        "products, mean": f"{np.mean(products):.1f}", "products, most": int(max(products)),
        "seconds, mean": f"{np.mean(seconds):.3g}",
    }  # fmt: skip
