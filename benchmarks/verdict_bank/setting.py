"""What a training of the bank is: how it is made, what is true of it, and in which half it stands."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

FOR_THRESHOLDS, FOR_REPORT = "thresholds", "report"
FIRED = frozenset({"watch", "alarm"})
ALARM = frozenset({"alarm"})
INFORMATIONAL = frozenset({"edge_of_stability", "neural_collapse"})  # a state of training, not a fault

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Expected:
    """What a verdict at the end of the run should say, and the steps between which the condition began."""

    states: frozenset[str] = FIRED
    onset: tuple[int, int] | None = None  # first and last step; None: the step is not judged


@dataclass
class Truth:
    """What was measured beside the run, without the probes: densely, on data that no probe holds.

    `columns` are lists of equal length, `step` among them; `facts` are single numbers.
    """

    columns: dict[str, list[float]] = field(default_factory=dict)
    facts: dict[str, float] = field(default_factory=dict)

    def add(self, **values: float) -> None:
        """Append a row."""
        for name, value in values.items():
            self.columns.setdefault(name, []).append(float(value))

    def __getitem__(self, name: str) -> np.ndarray:
        return np.asarray(self.columns[name], float)

    @property
    def steps(self) -> np.ndarray:
        """The steps of the rows, (n,)."""
        return self["step"].astype(int)


Labels = Mapping[str, Expected]


def nothing(truth: Truth) -> Labels:
    """Expect no condition."""
    return {}


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy over everything but the last axis of the targets' outputs."""
    return nn.functional.cross_entropy(outputs.reshape(-1, outputs.shape[-1]), targets.reshape(-1))


@dataclass
class Training:
    """All that one training needs. `before_step(step, training)` may change it on the way, as faults do."""

    model: nn.Module
    optimizer: Optimizer
    train: Batch
    heldout: Batch
    num_steps: int
    test: Batch | None = None  # held out from the probes too: the dense truth
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy
    batch_size: int | None = 64  # None: full batch
    lr_factor: Callable[[int], float] | None = None  # of the step about to be taken, 0 for the first
    augment: Callable[[Batch, int], Batch] | None = None  # of a mini-batch, at a step
    before_step: Callable[[int, Training], None] | None = None
    step_loss: Callable[[Batch], Tensor] | None = None  # in place of loss(model(x), y): what is descended
    num_probe: int = 128  # samples of the train probe
    probe_places: Sequence[int] | None = None  # in place of the first ones
    probes: Any = ("default",)
    without: frozenset[str] = frozenset()  # names of metrics that this run does not record
    every: Mapping[str, int] | None = None
    dense_every: int = 5
    facts: Callable[[nn.Module], Mapping[str, float]] | None = None  # of the model, at dense steps
    label: Callable[[Truth], Labels] = nothing
    logs_only: bool = False  # the user's own train_loss and val_loss, no probe of ours
    clip: float | None = None


@dataclass(frozen=True)
class Setting:
    """A kind of training with its sizes fixed; a seed makes a run of it.

    Args:
        name: unique in the bank.
        half: "thresholds" or "report", fixed by hand: architectures and sizes differ between the halves.
        make: seed → training.
        seeds: of the runs.
        is_healthy: every condition is expected to stay quiet.
        quiet: conditions that must stay quiet, for a look-alike.
        unjudged: conditions left out, for a healthy run where they may be said in good faith.
    """

    name: str
    half: str
    make: Callable[[int], Training]
    seeds: tuple[int, ...] = (0,)
    is_healthy: bool = False
    quiet: frozenset[str] = frozenset()
    unjudged: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.half not in (FOR_THRESHOLDS, FOR_REPORT):
            raise ValueError(f"expected 'thresholds' or 'report', got {self.half!r} in Setting({self.name!r})")


def _seeds(half: str) -> tuple[int, ...]:
    """Return the seed of a setting that names none: another in each half."""
    return (0,) if half == FOR_THRESHOLDS else (10,)


def healthy(name: str, half: str, make: Callable[[int], Training], *seeds: int, **more: Any) -> Setting:
    """Return a setting where nothing is wrong."""
    return Setting(name, half, make, seeds or _seeds(half), is_healthy=True, **more)


def faulty(name: str, half: str, make: Callable[[int], Training], *seeds: int, **more: Any) -> Setting:
    """Return a setting that shows what its labels say."""
    return Setting(name, half, make, seeds or _seeds(half), **more)


def look_alike(name: str, half: str, make: Callable[[int], Training], *seeds: int, quiet: str, **more: Any) -> Setting:
    """Return a setting that looks like a condition (or several, split by blanks) and is not."""
    return Setting(name, half, make, seeds or _seeds(half), quiet=frozenset(quiet.split()), **more)


def expect(condition: str, onset: tuple[int, int] | None = None, states: frozenset[str] = FIRED) -> Labels:
    """Return the labels of one condition, known from how the run is made."""
    return {condition: Expected(states, onset)}


def always(condition: str, onset: tuple[int, int] | None = None) -> Callable[[Truth], Labels]:
    """Return a labelling that does not depend on the run."""
    return lambda truth: expect(condition, onset)


def sgd(model: nn.Module, lr: float, momentum: float = 0.0, decay: float = 0.0, **more: Any) -> torch.optim.SGD:
    """Return SGD."""
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum, weight_decay=decay, **more)


def adamw(model: nn.Module, lr: float, decay: float = 0.0, **more: Any) -> torch.optim.AdamW:
    """Return AdamW."""
    return torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=decay, **more)


def of(
    model: nn.Module, data: Any, optimizer: Callable[[nn.Module], Optimizer], num_steps: int, **more: Any
) -> Training:
    """Return the training of a model on a split."""
    return Training(model, optimizer(model), data.train, data.heldout, num_steps, test=data.test, **more)


def cosine(num_steps: int, warm_up: int = 0) -> Callable[[int], float]:
    """Return linear warm-up and a cosine to 0, as factors of the learning rate."""

    def factor(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (num_steps - warm_up)))

    return factor


def drops(*at: int, by: float = 0.1) -> Callable[[int], float]:
    """Return a step schedule: the rate times `by` at each of these steps."""
    return lambda step: by ** sum(step >= a for a in at)
