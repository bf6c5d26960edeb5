"""A thread that hands a run's numbers to sinks, so that a slow tool never makes training wait."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from trainvitals.integrations.sink import Sink
from trainvitals.schema import Reading

MOST_WAITING = 10_000  # records; when so many wait, new ones are dropped and counted
MOST_KEYS = 32  # of one metric: a number for each sample is no chart in any of these tools


class Forwarder:
    """Hands numbers to sinks in a thread. A sink that fails is left out from then on, and `failed` says why.

    Args:
        sinks: where the numbers go.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self.num_dropped = 0
        self.failed: list[str] = []  # a message for each sink that is left out
        self._sinks = list(sinks)
        self._waiting: queue.Queue[tuple[int, dict[str, float]] | None] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._run, name="trainvitals-forwarder", daemon=True)
        self._thread.start()

    def put(self, step: int, readings: Mapping[str, Reading], scalars: Mapping[str, float]) -> None:
        """Hand over one record; dropped and counted if too many wait."""
        try:
            self._waiting.put_nowait((step, dict(scalars) | dict(_numbers(readings))))
        except queue.Full:
            self.num_dropped += 1

    def close(self, seconds: float = 30.0) -> None:
        """Wait until all is handed over, for so long at most, and close the sinks."""
        try:
            self._waiting.put(None, timeout=seconds)
        except queue.Full:  # a sink that hangs
            return
        self._thread.join(seconds)

    def _run(self) -> None:
        while (record := self._waiting.get()) is not None:
            for sink in list(self._sinks):
                self._guarded(sink, lambda sink=sink, record=record: sink.write(*record))
        for sink in list(self._sinks):
            self._guarded(sink, sink.close)

    def _guarded(self, sink: Sink, action) -> None:
        try:
            action()
        except Exception as error:
            self._sinks.remove(sink)
            self.failed.append(f"{type(sink).__name__} is left out from now on: {type(error).__name__}: {error}")


def _numbers(readings: Mapping[str, Reading]) -> Iterator[tuple[str, float]]:
    for name, reading in readings.items():
        if reading.value is None:
            continue
        values = np.asarray(reading.value, float)
        if values.ndim == 0:
            yield name, float(values)
        elif values.ndim == 1 and len(reading.keys) == len(values) <= MOST_KEYS:
            yield from ((f"{name}/{key}", float(value)) for key, value in zip(reading.keys, values, strict=True))
