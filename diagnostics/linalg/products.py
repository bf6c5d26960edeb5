"""How matrix-vector products are made in a run: by which way, in what blocks, within how much memory."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import torch

from trainvitals.diagnostics.base import Missing

DOUBLE_BACKWARD = "double backward"  # reverse over reverse on one graph a batch (Pearlmutter 1994)
FORWARD_OVER_REVERSE = "forward over reverse"  # the derivative of the gradient along v, in forward mode
FINITE_DIFFERENCES = "finite differences"  # central ones, of gradients: where there is no second derivative
IN_BLOCKS = " in blocks"
FORCED_BLOCK = 16  # vectors in one pass when blocks are asked for by name
OPTIONS = (
    "auto", DOUBLE_BACKWARD, DOUBLE_BACKWARD + IN_BLOCKS, FORWARD_OVER_REVERSE, FORWARD_OVER_REVERSE + IN_BLOCKS,
    FINITE_DIFFERENCES,
)  # fmt: skip


_TORCH_OUT_OF_MEMORY = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)  # the first since torch 2.5


def _warn(message: str) -> None:
    warnings.warn(f"trainvitals: {message}", RuntimeWarning, stacklevel=2)


@dataclass
class Products:
    """What is asked for, and what a run has come to; all operators of a run share one.

    "auto" is double backward. Blocks of vectors go through one pass where a calibration on this model showed
    that to be faster; an operation without a second derivative turns all products into finite differences.

    Forward over reverse takes 9 matrix products a layer where double backward on a kept graph takes 6 (the
    forward pass and the gradient come again with every product) and holds no graph; it is there by name.

    Args:
        requested: one of `OPTIONS`.
        max_memory_bytes: most that graphs which are held may take; None: no bound.
        patience: vectors multiplied in blocks within one operator before a calibration is worth its price of 7
            products (11 where passes are short). 64 keeps that near a tenth; 0 where a run will go on.
        signature: names model, batch and mode; a calibration is made once for each in a process, so that
            measuring twice repeats bit for bit although the choice depends on time.
        step_factor: of the step of finite differences.
        warn: is told once, in words, when memory ran out or a fallback was taken.
        blame: names the part of the model that has no second derivative, "" where it is not found.

    Raises:
        ValueError: for unknown ways, or a memory that is no positive whole number.
    """

    requested: str = "auto"
    max_memory_bytes: int | None = None
    patience: int = 64
    signature: Hashable = None
    step_factor: float = 1.0
    warn: Callable[[str], None] = field(default=_warn, repr=False)
    blame: Callable[[], str] = field(default=str, repr=False)
    # what came of it
    way: str = field(init=False)
    block: int | None = field(init=False)  # vectors in one pass; None: one
    num_calibrating: int = field(init=False, default=0)  # products spent on the choice of blocks
    micro_batch: int | None = field(init=False, default=None)  # samples of a batch in one graph, if it was cut
    rebuilds: bool = field(init=False, default=False)  # graphs are built for every product, one at a time
    graph_bytes: int | None = field(init=False, default=None)  # measured only with a bound
    reason: str | None = field(init=False, default=None)  # why not as asked for
    is_held_against: bool = field(init=False, default=False)  # forward over reverse, against double backward
    _halved: bool = field(init=False, default=False)
    _holder: Any = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        if self.requested not in OPTIONS:
            raise ValueError(
                f"expected products= to be one of {', '.join(map(repr, OPTIONS))}, got {self.requested!r} in "
                "trainvitals; leave it out for 'auto'"
            )
        limit = self.max_memory_bytes
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise ValueError(
                f"expected max_memory_bytes= to be a positive whole number of bytes, got {limit!r} in trainvitals; "
                "leave it out for no bound"
            )
        self.way = DOUBLE_BACKWARD if self.requested == "auto" else self.requested.removesuffix(IN_BLOCKS)
        self.block = FORCED_BLOCK if self.requested.endswith(IN_BLOCKS) else None

    @property
    def is_auto(self) -> bool:
        """Whether the way may be chosen here."""
        return self.requested == "auto"

    def words(self) -> dict[str, Any]:
        """Return what a reading says of its products."""
        found: dict[str, Any] = {"products": self.way}
        optional = {
            "block": self.block, "calibration_products": self.num_calibrating or None, "graph_bytes": self.graph_bytes,
            "micro_batch": self.micro_batch, "graphs": "rebuilt for every product" if self.rebuilds else None,
            "products_reason": self.reason,
        }  # fmt: skip
        return found | {key: value for key, value in optional.items() if value is not None}

    def with_step(self, factor: float) -> Products:
        """Return the same for finite differences with another step."""
        twin = dataclasses.replace(self, requested=FINITE_DIFFERENCES, step_factor=factor)
        twin.micro_batch, twin.rebuilds, twin._halved = self.micro_batch, self.rebuilds, self._halved
        return twin

    def fall_back(self, error: Exception) -> None:
        """Go on with finite differences, and say so once."""
        self.way, self.block = FINITE_DIFFERENCES, None
        self.reason = f"{self.without_derivative(error)}; products are finite differences of gradients"
        self.warn(self.reason)

    def impossible(self, error: Exception) -> str:
        """Return in words why the way that was asked for does not go."""
        if self.way == FORWARD_OVER_REVERSE:
            return f"forward over reverse does not go here ({_first_line(error)}); products='auto' takes another way"
        return f"{self.without_derivative(error)}; products={FINITE_DIFFERENCES!r} needs only gradients"

    def without_derivative(self, error: Exception) -> str:
        """Return in words what has no second derivative."""
        where = self.blame()
        return f"{where or 'an operation of the model'} has no second derivative in torch ({_first_line(error)})"

    def halve(self, num_samples: int, error: Exception) -> int:
        """Return the micro-batch to go on with after memory ran out on `num_samples` of them.

        Raises:
            Missing: the second time, and if there is nothing to halve.
        """
        if self._halved or num_samples < 2:
            raise Missing(
                f"out of memory with {num_samples} samples in one graph: {_first_line(error)}; "
                "give fewer probe samples, or a max_memory_bytes= to be kept to"
            ) from error
        self._halved, self.rebuilds, self.block = True, True, None
        self.micro_batch = (num_samples + 1) // 2
        self.reason = f"memory ran out with {num_samples} samples in one graph: {self.micro_batch} now, built each time"
        self.warn(self.reason)
        return self.micro_batch

    def record_bytes(self, graph_bytes: int) -> None:
        """Keep the most that graphs held at a time."""
        self.graph_bytes = max(graph_bytes, self.graph_bytes or 0)

    def claim(self, holder: Any) -> None:
        """Let one operator alone hold graphs, where memory is bounded: the last one frees its own."""
        if self.max_memory_bytes is None and not self.rebuilds:
            return
        if self._holder is not None and self._holder is not holder:
            self._holder.release()
        self._holder = holder

    def disown(self) -> None:
        """Forget the operator that held graphs last."""
        self._holder = None


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception says that memory ran out, on any device."""
    if isinstance(error, (MemoryError, _TORCH_OUT_OF_MEMORY)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        words in text for words in ("out of memory", "not enough memory", "can't allocate memory")
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
