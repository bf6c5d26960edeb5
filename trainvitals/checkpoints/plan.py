"""What every worker has to know: how the model is built, on what it is measured, and what is measured.

A plan travels as bytes, so that any executor can carry it; a worker opens each plan once and keeps it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import itertools
import pickle
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from trainvitals.checkpoints.errors import CheckpointError
from trainvitals.checkpoints.finding import Checkpoint
from trainvitals.checkpoints.optimizer_state import MakeOptimizer
from trainvitals.diagnostics.base import Diagnostic
from trainvitals.probes.subject import Forward

_FRAMES = 3  # of a user's traceback that a message shows


@dataclass(frozen=True)
class Plan:
    """How checkpoints are measured. Without `build`, weights alone are."""

    diagnostics: tuple[Diagnostic, ...]
    first: Checkpoint  # its weights are the start that growth and distances refer to
    build: Callable[[], nn.Module] | None = None
    batch: Any = None
    heldout: Any = None
    loss: Callable[[Any, Any], Tensor] | None = None
    forward: Forward | None = None
    make_optimizer: MakeOptimizer | None = None
    mode: str = "eval"
    seed: int = 0
    products: str = "auto"
    max_memory_bytes: int | None = None

    @property
    def is_of_weights(self) -> bool:
        """Whether there is no model: only what weights alone tell can be measured."""
        return self.build is None


@dataclass(frozen=True)
class SealedPlan:
    """A plan as bytes, with the folders in which its functions' modules are found."""

    body: bytes
    folders: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Sixteen digits that name the plan."""
        return hashlib.sha256(self.body).hexdigest()[:16]


def sealed(plan: Plan) -> SealedPlan:
    """Return a plan as bytes.

    Functions travel by the name of their module; lambdas and those of a script or notebook by their code, where
    the package cloudpickle is installed.

    Raises:
        CheckpointError: if one of its parts cannot be sent to another process.
    """
    try:
        if importlib.util.find_spec("cloudpickle") is not None:
            body = importlib.import_module("cloudpickle").dumps(plan)
        else:
            body = pickle.dumps(plan)
    except Exception as error:
        raise CheckpointError(
            f"expected a build function, loss and batch that can be sent to another process, got "
            f"{type(error).__name__}: {error} in trainvitals.analyze; define functions at the top of a module, or "
            "pass workers=1, which measures in this process"
        ) from error
    return SealedPlan(body, tuple(path for path in sys.path if path and Path(path).is_dir()))


def kept(plan: Plan) -> SealedPlan:
    """Return a plan that stays in this process: nothing of it has to travel."""
    key = SealedPlan(f"plan {next(_numbers)} of this process".encode(), ())
    _kept.clear()
    _kept[key] = plan
    return key


_numbers = itertools.count()
_kept: dict[SealedPlan, Plan] = {}  # the last one


@lru_cache(maxsize=2)
def opened(plan: SealedPlan) -> Plan:
    """Return the plan, made by this program's other processes and trusted like its code; opened once a process."""
    if plan in _kept:
        return _kept[plan]
    sys.path.extend(folder for folder in plan.folders if folder not in sys.path)
    return pickle.loads(plan.body)


def built(plan: Plan) -> nn.Module:
    """Call the user's function and return the model.

    Raises:
        CheckpointError: if it raises, with the end of its traceback, or returns something else.
    """
    assert plan.build is not None
    name = getattr(plan.build, "__qualname__", type(plan.build).__name__)
    try:
        model = plan.build()
    except Exception as error:
        raise CheckpointError(
            f"expected a model from build={name}, got {type(error).__name__}: {error} in trainvitals.analyze; "
            f"it must take no arguments and return the model. Its traceback ends with:\n{_last_frames(error)}"
        ) from error
    if not isinstance(model, nn.Module):
        raise CheckpointError(
            f"expected a torch.nn.Module from build={name}, got {type(model).__name__} in trainvitals.analyze; "
            "return the model itself, untrained"
        )
    return model


def _last_frames(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)[1:][-_FRAMES:]
    return "\n".join(f"  {frame.filename}, line {frame.lineno}, in {frame.name}: {frame.line}" for frame in frames)
