"""Weights without a model: what norms, spectra, tails, distances and ranks can be told from tensors by name.

Which tensors were trained is told by their names and dtypes: buffers of BatchNorm and whole numbers are left out.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from trainvitals.checkpoints.loaders.contents import Contents
from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, OptimizerView, ParameterGroup, Snapshot
from trainvitals.schema import Reading

T = TypeVar("T")

ENOUGH = Needs.PARAMETERS | Needs.OPTIMIZER_STATE  # what weights and hyperparameters alone can serve
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "position_ids", "inv_freq", "attn.bias",
            "masked_bias", "relative_position_index")  # fmt: skip
_WITHOUT = "there is no model: pass build= and batch= to measure it"


def trainable(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that were trained, by the looks of them, in float32 at least.

    >>> list(trainable({"bn.weight": torch.ones(2), "bn.running_mean": torch.ones(2), "n": torch.ones(1).long()}))
    ['bn.weight']
    """
    return {
        name: tensor if tensor.dtype == torch.float64 else tensor.float()
        for name, tensor in weights.items()
        if tensor.is_floating_point() and not name.endswith(_BUFFERS)
    }


def served(diagnostics: Sequence[Diagnostic]) -> list[Diagnostic]:
    """Return the diagnostics that weights alone can serve."""
    return [d for d in diagnostics if not d.needs & ~ENOUGH]


def measure_weights(
    contents: Contents, first: Mapping[str, Tensor], diagnostics: Sequence[Diagnostic], step: int, seed: int
) -> dict[str, Reading]:
    """Measure diagnostics on weights alone; one that asks for more is missing with the reason."""
    snapshot = WeightsSnapshot(contents, first, step, seed)
    dtype = str(next((t.dtype for t in snapshot.parameters.values()), "none")).removeprefix("torch.")
    readings: dict[str, Reading] = {}
    for diagnostic in diagnostics:
        started = time.perf_counter()
        found = _found(diagnostic, snapshot)
        names = diagnostic.descriptions()
        seconds = (time.perf_counter() - started) / len(names)
        for name in names:
            part = found if isinstance(found, Reading) else found[name.removeprefix(f"{diagnostic.name}.")]
            readings[name] = replace(
                part, value=_plain(part.value), error=_plain(part.error), seconds=seconds,
                definition=f"{name} v{diagnostic.version}",
                provenance={"step": step, "mode": "weights only", "dtype": dtype},
            )  # fmt: skip
    return readings


def _found(diagnostic: Diagnostic, snapshot: WeightsSnapshot) -> Reading | Mapping[str, Reading]:
    try:
        return diagnostic.measure(cast(Snapshot, snapshot))
    except Missing as reason:
        return Reading.absent(str(reason))
    except Exception as error:
        return Reading.absent(f"the measurement failed with {type(error).__name__}: {error}")


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        value = value.numpy()
    if isinstance(value, (np.ndarray, list, tuple)):
        array = np.asarray(value, np.float64)
        return float(array) if array.ndim == 0 else array
    return None if value is None else float(value)


class WeightsSnapshot:
    """Implements as much of `trainvitals.diagnostics.base.Snapshot` as weights alone can."""

    mode = "weights only"
    num_samples = 0
    norm_parameters: frozenset[str] = frozenset()

    def __init__(self, contents: Contents, first: Mapping[str, Tensor], step: int, seed: int) -> None:
        self.step = step
        self.parameters = trainable(contents.weights)
        self._first = first
        self._rates = contents.learning_rates
        self._seed = seed
        self._memory: dict[Any, Any] = {}

    @property
    def initial_parameters(self) -> Mapping[str, Tensor]:
        """The first checkpoint's weights."""
        for name, tensor in self.parameters.items():
            if name not in self._first or tensor.shape != self._first[name].shape:
                raise Missing(f"{name!r} is not in the first checkpoint, or has another shape there")
        return self._first

    @property
    def optimizer(self) -> OptimizerView:
        """Learning rates alone: the state cannot be told apart by parameter without a model."""
        if not self._rates:
            raise Missing("the checkpoint holds no optimizer")
        return OptimizerView("unknown", tuple(ParameterGroup({"lr": rate}, ()) for rate in self._rates), {})

    def once(self, function: Callable[[Any], T]) -> T:
        """Return `function(self)`, computed once."""
        if function not in self._memory:
            self._memory[function] = function(self)
        return self._memory[function]

    def due(self, name: str) -> None:
        """Nothing is shared here."""

    def generator(self, purpose: str) -> torch.Generator:
        """Return a generator as a live run has it."""
        digest = hashlib.sha256(f"{self._seed}:{purpose}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))

    def progress(self, name: str, done: int, total: int) -> None:
        """Nobody waits for a part of a checkpoint."""

    def __getattr__(self, name: str) -> Any:
        raise Missing(_WITHOUT)
