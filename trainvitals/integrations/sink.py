"""The sink: another tool that is given a run's numbers while it is watched."""

from __future__ import annotations

import abc
from collections.abc import Mapping


class Sink(abc.ABC):
    """Another tool's run. Pass it to `trainvitals.watch(..., sinks=[...])`.

    Its methods are called from one thread of their own, in the order of the steps.
    """

    @abc.abstractmethod
    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Take the numbers of one step, by metric name; of a metric with a number per key by `name/key`."""

    @abc.abstractmethod
    def close(self) -> None:
        """Write what is left."""
