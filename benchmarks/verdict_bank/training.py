"""Train a setting under `tv.watch` as a user would, and measure the truth beside it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import trainvitals as tv
from trainvitals.diagnostics.base import Needs, Tier
from trainvitals.diagnostics.registry import matching, select
from verdict_bank.setting import Batch, Expected, Setting, Training, Truth

POINTS, LIGHT_POINTS, GRADIENT_POINTS, PRODUCT_POINTS = 30, 60, 9, 9  # measurements in a run
DEAR = ("hessian.density", "hessian.bottom", "hessian.trace")  # of the default probes; no condition reads them
# Cheap metrics that conditions read beside the default ones, in every run, healthy ones too: a condition that is
# never checked is never wrong.
BESIDE = (
    "el2n",
    "memorised",
    "mia_auc",
    "per_class",
    "logit.z",
    "rank.effective",
    "softmax_collapse",
    "first_bad",
    "adam.eps_share",
    "adam.update_rms",
    "grad.confusion",
    "grad.per_class",
    "grad.nlm",
    "forgetting",
    "weights.spectral",
)


@dataclass(frozen=True)
class Entry:
    """One run of the bank, as it lies on disk."""

    setting: str
    half: str
    seed: int
    path: str
    num_steps: int
    is_healthy: bool
    quiet: tuple[str, ...]
    unjudged: tuple[str, ...]
    labels: Mapping[str, Expected]
    truth: Mapping[str, list[float]]
    seconds: float = 0.0

    def to_json(self) -> str:
        """Return one JSON object."""
        raw = asdict(self)
        raw["labels"] = {
            c: {"states": sorted(e.states), "onset": None if e.onset is None else [int(step) for step in e.onset]}
            for c, e in self.labels.items()
        }
        return json.dumps(raw)

    @classmethod
    def from_json(cls, text: str) -> Entry:
        """Read an entry."""
        raw = json.loads(text)
        raw["labels"] = {
            c: Expected(frozenset(e["states"]), None if e["onset"] is None else tuple(e["onset"]))
            for c, e in raw["labels"].items()
        }
        return cls(**{**raw, "quiet": tuple(raw["quiet"]), "unjudged": tuple(raw["unjudged"])})


def train(setting: Setting, seed: int, folder: Path) -> Entry:
    """Train one run of a setting into a folder of runs and return its entry."""
    torch.manual_seed(seed)
    made = setting.make(seed)
    truth = Truth()
    path = _run(made, f"{setting.name}-s{seed}", seed, folder, truth)
    return Entry(
        setting=setting.name,
        half=setting.half,
        seed=seed,
        path=str(path),
        num_steps=made.num_steps,
        is_healthy=setting.is_healthy,
        quiet=tuple(sorted(setting.quiet)),
        unjudged=tuple(sorted(setting.unjudged)),
        labels=made.label(truth),
        truth=truth.columns,
    )


def _run(made: Training, name: str, seed: int, folder: Path, truth: Truth) -> Path:
    probe_rows = torch.as_tensor(made.probe_places) if made.probe_places is not None else slice(0, made.num_probe)
    probe = (made.train[0][probe_rows], made.train[1][probe_rows])
    probes = {"update.ratio": {}} if made.logs_only else _probes(made)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a probe that does not fit is a gap in the run
        with tv.watch(
            made.model,
            made.optimizer,
            loss=made.loss,
            train=probe,
            heldout=made.heldout,
            name=name,
            store=folder,
            probes=probes,
            every=_every(made, probes),
            budget=None,
        ) as run:
            _loop(made, seed, run, truth, probe)
    return run.path


def _loop(made: Training, seed: int, run: Any, truth: Truth, probe: Batch) -> None:
    rates = [group["lr"] for group in made.optimizer.param_groups]
    batches = _batches(made, seed)
    _observe(made, truth, 0)
    for step in range(made.num_steps):
        if made.before_step is not None:
            made.before_step(step, made)
        if made.lr_factor is not None:
            for group, rate in zip(made.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * made.lr_factor(step)
        batch_loss = _step(made, next(batches), step)
        if made.logs_only:
            _log_losses(made, run, step, batch_loss, probe)
        else:
            run.log(batch_loss=batch_loss)
        if (step + 1) % made.dense_every == 0 or step + 1 == made.num_steps:
            _observe(made, truth, step + 1)


def _step(made: Training, batch: Batch, step: int) -> float:
    made.model.train()
    made.optimizer.zero_grad()
    batch = made.augment(batch, step) if made.augment is not None else batch
    loss = made.step_loss(batch) if made.step_loss is not None else made.loss(made.model(batch[0]), batch[1])
    loss.backward()
    if made.clip is not None:
        nn.utils.clip_grad_norm_(made.model.parameters(), made.clip)
    made.optimizer.step()
    return loss.item()


def _log_losses(made: Training, run: Any, step: int, batch_loss: float, probe: Batch) -> None:
    run.log(train_loss=batch_loss)
    if (step + 1) % max(1, made.num_steps // 60) == 0:
        with torch.no_grad():
            made.model.eval()
            run.log(val_loss=float(made.loss(made.model(made.heldout[0]), made.heldout[1])))


def _batches(made: Training, seed: int) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(seed + 1)
    rows = torch.empty(0, dtype=torch.long)
    while True:
        x, y = made.train  # looked up anew: a training may change its data on the way
        size = len(y) if made.batch_size is None else min(made.batch_size, len(y))
        if made.batch_size is None:
            yield x, y
            continue
        if len(rows) < size:
            rows = torch.randperm(len(y), generator=generator)
        yield x[rows[:size]], y[rows[:size]]
        rows = rows[size:]


def _observe(made: Training, truth: Truth, step: int) -> None:
    """Add a row of truth: train and test loss and accuracy, and what the training asks for of its model."""
    was_training = made.model.training
    made.model.eval()
    with torch.no_grad():
        row = {"step": float(step), **_scores(made, made.train, "train")}
        if made.test is not None:
            row |= _scores(made, made.test, "test")
    if made.facts is not None:
        row |= made.facts(made.model)
    made.model.train(was_training)
    truth.add(**row)


def _scores(made: Training, batch: Batch, name: str) -> dict[str, float]:
    outputs, targets = made.model(batch[0]), batch[1]
    scores = {f"{name}_loss": float(made.loss(outputs, targets))}
    if not targets.is_floating_point():
        scores[f"{name}_accuracy"] = accuracy(outputs, targets)
    return scores


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    """Return the share of labels that have the largest output; -100 is no label."""
    return float((outputs.argmax(-1) == targets)[targets != -100].double().mean())


def _probes(made: Training) -> dict[str, dict[str, Any]]:
    wanted = dict.fromkeys((*made.probes, *BESIDE)) if not isinstance(made.probes, Mapping) else made.probes
    options = dict(wanted) if isinstance(made.probes, Mapping) else {}
    names = [d.name for d in select([name for name in wanted if _exists(name)])]
    return {name: options.get(name) or {} for name in names if name not in made.without and name not in DEAR}


def _exists(name: str) -> bool:
    try:
        return bool(select([name]))
    except ValueError:
        return False


def _every(made: Training, probes: Mapping[str, Any]) -> dict[str, int]:
    """Return the steps between measurements by diagnostic: in proportion to the run, the dear ones seldom."""
    found = {}
    for d in select(probes):
        points = LIGHT_POINTS if d.tier is Tier.LIGHT else POINTS
        points = GRADIENT_POINTS if d.needs & Needs.PER_SAMPLE_GRADIENTS else points
        points = PRODUCT_POINTS if d.needs & Needs.HVP else points
        asked = [n for name, n in (made.every or {}).items() if type(d) in matching(name)]
        found[d.name] = asked[0] if asked else max(1, made.num_steps // points)
    return found
