"""How many vectors go through one pass fastest on this model: tried once, on a few products."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

_SMALL, _LARGE = 4, 16  # vectors in a pass that are tried
_WORTH = 0.8  # a block that takes more of the time of single vectors is within the noise of one timing
_CHEAP = 0.05  # seconds: what passes for nothing to spend on trying
_ROUNDING = 1e3  # machine precisions, relative: products that differ by more are not the same

Run = Callable[[int | None, Tensor], Tensor]  # (vectors in a pass, rows (k, P)) -> products (k, P)


@dataclass(frozen=True)
class Choice:
    """The vectors in one pass, None for one, and the products that it took to find out."""

    block: int | None
    num_products: int


_made: dict[Hashable, Choice] = {}


def calibrated(key: Hashable, run: Run, rows: Tensor) -> tuple[Choice, int]:
    """Return the choice for a model, and the products spent now: none if it was made before in this process.

    Timed are one vector (twice, after one that warms up), a block of 4 and, if that pays and passes are short, one
    of 16; short passes twice. A block counts if it takes at most 0.8 of the time a vector, and if its products equal
    those of single vectors but for rounding. A block that fails is left out.

    Forward over reverse is not tried: it takes 9 matrix products a layer where double backward on a kept graph
    takes 6, was slower in blocks and alone on all models timed here, and torch takes seconds to load its first
    forward derivative.

    Args:
        key: names the model, the batch and the operator.
        run: makes products.
        rows: vectors to try on, (k, P), k ≥ 2.
    """
    if key in _made:
        return _made[key], 0
    trial = _Trial(run, rows)
    block = trial.block()
    _made[key] = Choice(block, trial.num_products)
    return _made[key], trial.num_products


class _Trial:
    def __init__(self, run: Run, rows: Tensor) -> None:
        self._run, self._rows = run, rows
        self.num_products = 0

    def block(self) -> int | None:
        first, _ = self._timed(None, 0, 1)
        second, one = self._timed(None, 1, 2)
        seconds = min(one, self._timed(None, 0, 1)[1])  # twice: a hiccup here would make any block look good
        known, size = torch.cat([first, second]), min(_SMALL, len(self._rows))
        each = self._seconds_each(size, known)
        if each > _WORTH * seconds:
            return None
        is_cheap = len(self._rows) >= _LARGE and _LARGE * each < _CHEAP
        return _LARGE if is_cheap and self._seconds_each(_LARGE, known) <= _WORTH * each else _SMALL

    def _seconds_each(self, block: int, known: Tensor) -> float:
        """Return the seconds a vector, infinite where the block fails or gives something else."""
        try:
            found, seconds = self._timed(block, 0, block)
            if seconds < _CHEAP:  # the first pass has work of its own
                found, seconds = self._timed(block, 0, block)
        except Exception:  # no rule for vmap, short of memory: no way for this model
            return float("inf")
        error = torch.linalg.vector_norm(found[:2] - known)
        tolerance = _ROUNDING * torch.finfo(known.dtype).eps * torch.linalg.vector_norm(known)
        return seconds / block if error <= tolerance else float("inf")

    def _timed(self, block: int | None, start: int, stop: int) -> tuple[Tensor, float]:
        self.num_products += stop - start
        _synchronise(self._rows)
        started = time.perf_counter()
        found = self._run(block, self._rows[start:stop])
        _synchronise(self._rows)
        return found, time.perf_counter() - started


def _synchronise(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
