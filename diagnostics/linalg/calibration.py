"""Which way multiplies a block of vectors fastest on this model: tried once, on a few products."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainvitals.diagnostics.linalg.products import DOUBLE_BACKWARD, FORWARD_OVER_REVERSE

_SMALL, _LARGE = 4, 16  # vectors in a pass that are tried
_WORTH = 0.8  # a way that takes more of the time of the simplest one is within the noise of one timing
_GATE = 1.2  # blocks of a way are tried if one vector takes no longer than this
_CHEAP = 0.05  # seconds: what passes for nothing to spend on trying
_ROUNDING = 1e3  # machine precisions, relative: products that differ by more are not the same

Run = Callable[[str, int | None, Tensor], Tensor]  # (way, block, rows (k, P)) -> products (k, P)


@dataclass(frozen=True)
class Choice:
    """The way and the vectors in one pass, and the products that it took to find out."""

    way: str
    block: int | None
    num_products: int


_made: dict[Hashable, Choice] = {}


def calibrated(key: Hashable, run: Run, rows: Tensor) -> tuple[Choice, int]:
    """Return the choice for a model, and the products spent now: none if it was made before in this process.

    Timed are, in this order: one vector by double backward (after one that warms up), a block of 4, one vector by
    forward over reverse and, if it comes near, a block of 4 by it; if the block of 4 pays and passes are short,
    one of 16. A block counts if it takes at most 0.8 of the time a vector, and if its products equal
    those of double backward but for rounding. What fails is left out.

    Args:
        key: names the model, the batch and the operator.
        run: makes products.
        rows: vectors to try on, (k, P), k ≥ 2.
    """
    if key in _made:
        return _made[key], 0
    trial = _Trial(run, rows)
    choice = trial.choice()
    _made[key] = choice
    return choice, choice.num_products


class _Trial:
    def __init__(self, run: Run, rows: Tensor) -> None:
        self._run, self._rows = run, rows
        self._spent = 0
        self._reference = rows[:0]

    def choice(self) -> Choice:
        self._reference = torch.cat([self._products(DOUBLE_BACKWARD, None, i, i + 1)[0] for i in (0, 1)])
        seconds = self._last
        best = Choice(DOUBLE_BACKWARD, None, 0)
        limit, size = _WORTH * seconds, min(_SMALL, len(self._rows))
        for way in (DOUBLE_BACKWARD, FORWARD_OVER_REVERSE):
            if way != DOUBLE_BACKWARD and not self._time(way, None, 1) <= _GATE * seconds:
                continue
            if (each := self._time(way, size, size)) <= limit:
                best, limit = Choice(way, _SMALL, 0), each
        is_tried = best.block is not None and len(self._rows) >= _LARGE and _LARGE * limit < _CHEAP
        if is_tried and self._time(best.way, _LARGE, _LARGE) <= _WORTH * limit:
            best = Choice(best.way, _LARGE, 0)
        return Choice(best.way, best.block, self._spent)

    def _time(self, way: str, block: int | None, count: int) -> float:
        """Return the seconds a vector, infinite where the way fails or gives something else."""
        try:
            found, seconds = self._products(way, block, 0, count)
            if seconds < _CHEAP:  # the first pass of a way has work of its own
                found, seconds = self._products(way, block, 0, count)
        except Exception:  # no rule for vmap or forward mode, short of memory: not a way for this model
            return float("inf")
        known = self._reference[: len(found)]
        error = torch.linalg.vector_norm(found[: len(known)] - known) / torch.linalg.vector_norm(known)
        return seconds / count if error <= _ROUNDING * torch.finfo(known.dtype).eps else float("inf")

    def _products(self, way: str, block: int | None, start: int, stop: int) -> tuple[Tensor, float]:
        self._spent += stop - start
        _synchronise(self._rows)
        started = time.perf_counter()
        found = self._run(way, block, self._rows[start:stop])
        _synchronise(self._rows)
        self._last = time.perf_counter() - started
        return found, self._last


def _synchronise(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
