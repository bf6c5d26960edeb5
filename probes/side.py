"""Where diagnostics are measured: in the trainer, or beside it in a process of their own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from trainvitals.diagnostics.base import Diagnostic, Needs, Tier

INLINE, SIDE = "inline", "side"
_HINT = "write where='side', where=trainvitals.Side(num_threads=2), or leave it out for 'inline'"


@dataclass(frozen=True)
class Side:
    """Measure in a second process: training pays for a copy of its weights, and goes on.

    Args:
        num_threads: that the process computes with. One takes an idle core and no more.
        niceness: added to the process's own, so that training goes first where cores are short (not on Windows).
        num_waiting: copies of the model that may wait while it is busy. A point that is due while all are taken is
            dropped and counted.
        close_seconds: how long the end of a run waits for what is still being measured.
        device: where it measures what training has on a GPU. None: on another GPU if there is one, else on the CPU.
            What training has on the CPU is measured there.

    Raises:
        ValueError: if a number is out of its range.

    >>> Side(num_threads=2).num_waiting
    2
    """

    num_threads: int = 1
    niceness: int = 10
    num_waiting: int = 2
    close_seconds: float = 60.0
    device: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("num_threads", 1), ("niceness", 0), ("num_waiting", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
                raise ValueError(
                    f"expected a whole number of at least {least}, got {value!r} in {name}= of trainvitals.Side; "
                    f"{_HINT}"
                )
        seconds = self.close_seconds
        if isinstance(seconds, bool) or not isinstance(seconds, Real) or not seconds >= 0:
            raise ValueError(
                f"expected a number of seconds of at least 0, got {seconds!r} in close_seconds= of trainvitals.Side; "
                "0 waits for nothing, float('inf') until all is measured"
            )
        if self.device is not None and not isinstance(self.device, str):
            raise ValueError(
                f"expected the name of a device such as 'cuda:1', got {self.device!r} in device= of trainvitals.Side; "
                "leave it out to have one chosen"
            )


def side_of(where: Any) -> Side | None:
    """Return what `where=` stands for; None is inline.

    Raises:
        ValueError: if it is neither "inline", "side" nor a `Side`.

    >>> side_of("inline") is None, side_of("side") == Side()
    (True, True)
    """
    if isinstance(where, Side):
        return where
    if where == INLINE and isinstance(where, str):
        return None
    if where == SIDE and isinstance(where, str):
        return Side()
    raise ValueError(f"expected 'inline', 'side' or a trainvitals.Side, got {where!r} in where=; {_HINT}")


def is_offloaded(diagnostic: type[Diagnostic]) -> bool:
    """Tell by its needs whether a diagnostic is measured beside training.

    Not so is what reads the training steps themselves, which hooks in the trainer see, and what costs less than
    the copy that it would take: a look at the optimiser, and the tier that needs no pass.
    """
    if diagnostic.needs & Needs.TRAJECTORY or diagnostic.tier is Tier.LIGHT:
        return False
    return bool(diagnostic.needs & ~Needs.OPTIMIZER_STATE)


def offloaded(diagnostics: Iterable[Diagnostic]) -> frozenset[str]:
    """Return the names of those that are measured beside training."""
    return frozenset(d.name for d in diagnostics if is_offloaded(type(d)))
