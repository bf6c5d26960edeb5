"""What a run says of itself: model, optimiser, probes, machine and program."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainvitals.probes.environment import command, environment, plain_config
from trainvitals.probes.probe_batch import ProbeBatch
from trainvitals.probes.schedule import Schedule
from trainvitals.probes.subject import Subject
from trainvitals.schema import Description

COST_DESCRIPTIONS = {
    "probe.seconds": Description(
        name="probe.seconds", title="Time spent measuring", question="Is anything wrong?", unit="s",
        summary="What the probes cost at each measured step, in seconds of the training thread.",
    ),
    "probe.share": Description(
        name="probe.share", title="Share of wall time spent measuring", question="Is anything wrong?", unit="1",
        summary="Seconds spent measuring since the run began over all seconds since then.",
    ),
    "probe.share_of_last_minute": Description(
        name="probe.share_of_last_minute", title="Share of the last minute spent measuring",
        question="Is anything wrong?", unit="1", summary="Seconds of the last minute that were spent measuring.",
    ),
    "probe.interval": Description(
        name="probe.interval", title="Steps between measurements", question="Is anything wrong?", unit="steps",
        summary="How many training steps apart the budget lets each metric be measured.", chart="heatmap", scale="log",
        keys="metric",
    ),
    "probe.price": Description(
        name="probe.price", title="Price of one measurement", question="Is anything wrong?", unit="s",
        summary="Seconds that measuring each metric takes, beside what it shares with others.", chart="heatmap",
        scale="log", keys="metric",
    ),
}  # fmt: skip


def run_meta(
    subject: Subject, schedules: Mapping[str, Schedule], share: float | None, config: Any = None
) -> dict[str, Any]:
    """Return what is stored once per run; secrets in the settings and in the command are hidden.

    Raises:
        ValueError: if `config` is no mapping, dataclass or namespace.
    """
    return {
        "model": _model(subject),
        "optimizer": _optimizer(subject),
        "probes": {name: str(schedule) for name, schedule in schedules.items()},
        "budget": share,  # of wall time; None: the schedule is followed exactly
        "train_probe": _probe(subject.train),
        "heldout_probe": _probe(subject.heldout) if subject.heldout is not None else None,
        "heldout_sets": {name: _probe(batch) for name, batch in subject.heldout_sets.items()},
        "mode": subject.mode,
        "seed": subject.seed,
        "environment": environment(next(iter(subject.parameters().values())).device),
        "program": Path(sys.argv[0]).name if sys.argv else "",
        "command": command(),
        "config": plain_config(config) if config is not None else {},
    }


def _model(subject: Subject) -> dict[str, Any]:
    parameters = list(subject.model.parameters())
    return {
        "class": type(subject.model).__name__,
        "num_parameters": sum(p.numel() for p in parameters),
        "num_trainable": sum(p.numel() for p in parameters if p.requires_grad),
    }


def _optimizer(subject: Subject) -> dict[str, Any]:
    optimizer = subject.optimizer
    if optimizer is None:
        return {}
    plain = (bool, int, float, str, tuple, list, type(None))
    groups = [
        {key: value for key, value in group.items() if key != "params" and isinstance(value, plain)}
        | {"num_parameters": sum(p.numel() for p in group["params"])}
        for group in optimizer.param_groups
    ]
    return {"class": type(optimizer).__name__, "groups": groups}


def _probe(batch: ProbeBatch) -> dict[str, Any]:
    return {"num_samples": batch.num_samples, "hash": batch.hash}
