"""Whose time it was: of each diagnostic alone, and of what several share at one step."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager


class Meter:
    """Splits the time of one measurement among the diagnostics, without counting a second twice.

    >>> clock = iter([0.0, 1.0, 3.0, 4.0, 9.0, 9.5])
    >>> meter = Meter(lambda: next(clock))
    >>> with meter.of("loss"):
    ...     with meter.part("train pass"):
    ...         pass
    >>> with meter.of("accuracy"):
    ...     meter.used("train pass")
    >>> meter.split({"loss": "forward", "accuracy": "forward"})
    ({'loss': 2.0, 'accuracy': 0.5}, {'forward': 2.0})
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._seconds: dict[Hashable, float] = {}
        self._maker: dict[Hashable, str] = {}  # of each part: the diagnostic that needed it first
        self._users: dict[Hashable, set[str]] = {}
        self._open: list[Hashable] = []
        self._diagnostic = ""
        self._mark = 0.0

    @contextmanager
    def of(self, diagnostic: str) -> Iterator[None]:
        """Count what follows as this diagnostic's own."""
        self._diagnostic = diagnostic
        with self._counting(("own", diagnostic)):
            yield

    @contextmanager
    def part(self, what: Hashable, maker: str | None = None) -> Iterator[None]:
        """Count what follows as something that others may use too, needed by the present diagnostic or by `maker`."""
        self._maker.setdefault(what, maker or self._diagnostic)
        self.used(what)
        with self._counting(what):
            yield

    def used(self, what: Hashable) -> None:
        """Note that the present diagnostic reads it."""
        self._users.setdefault(what, set()).add(self._diagnostic)

    def seconds(self, what: Hashable) -> float:
        """Return what a part has taken."""
        return self._seconds.get(what, 0.0)

    def split(self, families: Mapping[str, str]) -> tuple[dict[str, float], dict[str, float]]:
        """Return seconds by diagnostic, and by family what it shares.

        A part that one diagnostic alone has used is its own, unless it is one of the passes, which have names.
        """
        own = {name: self._seconds.get(("own", name), 0.0) for name in families}
        shared = dict.fromkeys(families.values(), 0.0)
        for what, maker in self._maker.items():
            if maker not in families:
                continue
            if isinstance(what, str) or len(self._users[what]) > 1:
                shared[families[maker]] += self.seconds(what)
            else:
                own[maker] += self.seconds(what)
        return own, shared

    @contextmanager
    def _counting(self, what: Hashable) -> Iterator[None]:
        self._charge()
        self._open.append(what)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def _charge(self) -> None:
        now = self._clock()
        if self._open:
            self._seconds[self._open[-1]] = self._seconds.get(self._open[-1], 0.0) + now - self._mark
        self._mark = now
