"""What every system of the comparison can be asked; what it cannot do it raises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from curvature_models import Task

Setting = dict[str, Any]
NUM_TOP = 5


@dataclass(frozen=True)
class Answer:
    """Values, and the Hessian-vector products that they took."""

    values: np.ndarray  # (k,) descending, or (1,) for a trace
    num_products: int


@dataclass(frozen=True)
class Quadrature:
    """Nodes and weights of all runs together; weights add up to 1."""

    nodes: np.ndarray  # (n,)
    weights: np.ndarray  # (n,)


class System(ABC):
    """A library, asked for one answer on one task with one setting and one seed."""

    name: ClassVar[str]
    is_peer: ClassVar[bool] = True

    @abstractmethod
    def top_settings(self, num_negative: int, k: int) -> list[list[Setting]]:
        """Return ladders of settings, each from cheap to dear; the cheapest that is accurate is used.

        Args:
            num_negative: how many negative eigenvalues are larger in size than the last one wanted.
            k: how many are wanted.
        """

    @abstractmethod
    def top(self, task: Task, setting: Setting, seed: int, k: int = NUM_TOP) -> Answer:
        """Return the k largest eigenvalues of the Hessian."""

    @abstractmethod
    def trace(self, task: Task, method: str, size: float, seed: int) -> Answer:
        """Return the trace; `size` is the method's dial for price: products, or a tolerance."""

    @abstractmethod
    def density(self, task: Task, num_runs: int, num_steps: int, seed: int) -> Quadrature:
        """Return Lanczos quadratures."""

    def help(self) -> AbstractContextManager[None]:
        """Return what has to be set up around a call by the user."""
        return differentiable_attention() if self.is_peer else nullcontext()

    def prepare(self, task: Task) -> None:
        """Undo what an earlier call has left in the model."""
        task.model.zero_grad(set_to_none=True)
        task.model.eval()


@contextmanager
def differentiable_attention() -> Iterator[None]:
    """Choose the attention kernel that has second derivatives, as a user of these peers has to."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
