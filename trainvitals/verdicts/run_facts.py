"""A run as conditions see it: series by name, read when asked for and once; and what is known of its task.

Legend: n points, K layers or classes, C classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from trainvitals.schema import Event
from trainvitals.verdicts.series import Layers, Series, cleaned, cleaned_layers, thinned
from trainvitals.verdicts.source import Raw, Source


class Unmeasured(Exception):  # noqa: N818  (it is a reason, not a failure)
    """Raised when a condition lacks what it cannot do without: metrics, or reasons in words."""

    def __init__(self, *missing: str) -> None:
        super().__init__("; ".join(missing))
        self.missing = missing


class RunFacts:
    """A run as conditions see it. Points that are no finite numbers are left out of every series.

    Args:
        source: where the series are.

    >>> from trainvitals.verdicts.source import MemorySource
    >>> run = RunFacts(MemorySource({"loss.train": ([0, 10, 20], [2.3, float("nan"), 1.9])}))
    >>> run.series("loss.train").value.tolist(), run.first_nonfinite("loss.train")
    ([2.3, 1.9], 10)
    >>> run.until(10).series("loss.train").step.tolist()
    [0]
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._until: int | None = None
        self._numbers: dict[str, Raw] = {}  # as stored; shared with every view of an earlier moment
        self._vectors: dict[str, Raw] = {}
        self._absences: dict[str, tuple[tuple[int, str], ...]] = {}
        self._series: dict[str, Series] = {}
        self._layers: dict[str, Layers] = {}

    def until(self, step: int) -> RunFacts:
        """Return the run as it stood at a step: what a reader saw then."""
        view = RunFacts(self._source)
        view._until = step
        view._numbers, view._vectors, view._absences = self._numbers, self._vectors, self._absences
        return view

    # Series -------------------------------------------------------------------------------------

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of all metrics, the user's own included."""
        return self._source.names()

    def series(self, name: str) -> Series:
        """Return a metric with one number a step: medians of blocks where there are many points, empty if unknown."""
        if name not in self._series:
            self._series[name] = thinned(self.every_point(name))
        return self._series[name]

    def every_point(self, name: str) -> Series:
        """Return all points of a metric, however many."""
        raw = self.raw(name)
        return cleaned(name, raw.step, raw.value)

    def layers(self, name: str) -> Layers:
        """Return a metric with a number per key: at most a few hundred measurements of it, empty if unknown."""
        if name not in self._layers:
            raw = self.raw_layers(name)
            self._layers[name] = cleaned_layers(name, raw.step, raw.value, raw.keys)
        return self._layers[name]

    def need(self, name: str, num_points: int = 8) -> Series:
        """Return a metric with at least so many points.

        Raises:
            Unmeasured: if there are fewer, with what is missing.
        """
        series = self.series(name)
        if len(series) < num_points:
            raise Unmeasured(self.why_missing(name, len(series), num_points))
        return series

    def need_layers(self, name: str, num_points: int = 8) -> Layers:
        """Return a metric with a number per key, measured at least so often.

        Raises:
            Unmeasured: if it was measured less often, with what is missing.
        """
        layers = self.layers(name)
        if not layers or len(layers) < num_points:
            raise Unmeasured(self.why_missing(name, len(layers), num_points))
        return layers

    def raw(self, name: str) -> Raw:
        """Return a metric's numbers in order of arrival, NaN and Inf included."""
        if name not in self._numbers:
            self._numbers[name] = self._source.numbers(name)
        return self._numbers[name].at_most(self._until)

    def raw_layers(self, name: str) -> Raw:
        """Return a metric with a number per key in order of arrival, NaN and Inf included."""
        if name not in self._vectors:
            self._vectors[name] = self._source.vectors(name)
        return self._vectors[name].at_most(self._until)

    def first_nonfinite(self, name: str) -> int | None:
        """Return the first step at which a metric with one number a step was NaN or Inf, or None."""
        raw = self.raw(name)
        bad = np.flatnonzero(~np.isfinite(raw.value))
        return int(raw.step[bad[0]]) if len(bad) else None

    def why_missing(self, name: str, num: int = 0, wanted: int = 1) -> str:
        """Return in words why a metric is not there, or not often enough."""
        if num:
            return f"{name}: {num} of {wanted} measurements needed"
        absences = self.absences(name)
        return f"{name}: {absences[-1][1]}" if absences else f"{name}: not measured"

    def absences(self, name: str) -> tuple[tuple[int, str], ...]:
        """Return (step, reason) of every moment at which a metric was undefined."""
        if name not in self.names:
            return ()
        if name not in self._absences:
            self._absences[name] = self._source.absences(name)
        return tuple(a for a in self._absences[name] if self._until is None or a[0] <= self._until)

    # The run ------------------------------------------------------------------------------------

    @property
    def meta(self) -> Mapping[str, Any]:
        """What the run recorded of itself: its model, its optimizer, its probes."""
        return self._source.meta

    @property
    def events(self) -> tuple[Event, ...]:
        """What happened to the run, in words."""
        return tuple(e for e in self._source.events() if self._until is None or e.step <= self._until)

    def details(self, name: str) -> Mapping[str, Any]:
        """Return the details of a metric's newest reading."""
        return self._source.details(name)

    @cached_property
    def last_step(self) -> int:
        """The newest step at which a loss or a weight norm was measured; 0 before the first."""
        ends = [s.step[-1] for s in map(self.series, ("loss.train", "loss.heldout")) if s]
        norms = self.layers("weights.norm.value") if not ends else None
        return int(max([*ends, *(norms.step[-1:] if norms is not None else ())], default=0))

    @cached_property
    def optimizer(self) -> Mapping[str, Any]:
        """The optimiser's first group as recorded at the start, with its `class`; empty if it was not recorded."""
        recorded = self.meta.get("optimizer") or {}
        groups = recorded.get("groups") or [{}]
        return {**groups[0], "class": recorded.get("class", "")} if recorded else {}

    @cached_property
    def learning_rate(self) -> Series:
        """The largest learning rate of the groups over time; the recorded one of the start if it was not measured."""
        measured = self.layers("learning_rate").largest()
        if measured:
            return measured
        rate = self.optimizer.get("lr")
        start = rate if isinstance(rate, (int, float)) else np.nan
        return cleaned("learning_rate", np.array([0]), np.array([float(start)]))

    @cached_property
    def logged_losses(self) -> tuple[str, ...]:
        """Names of the training losses that the user logs (a batch's, as a rule), told by their names."""
        return tuple(name for name in sorted(self.names) if _is_training_loss(name))

    # The task -----------------------------------------------------------------------------------

    @cached_property
    def chance_loss(self) -> float | None:
        """The train-probe loss of the best prediction that ignores the inputs; None where the loss is not known."""
        return self._first("chance.loss")

    @cached_property
    def chance_accuracy(self) -> float | None:
        """The train-probe accuracy of always naming the commonest class; None for no classifier."""
        return self._first("chance.accuracy")

    @cached_property
    def num_classes(self) -> int | None:
        """The number of classes C that the outputs tell apart; None for no classifier."""
        found = self._first("chance.num_classes")
        return None if found is None else int(found)

    @cached_property
    def loss_kind(self) -> str | None:
        """The loss as recognised from its value: "cross-entropy", "squared error" or None."""
        found = self.details("chance.loss").get("loss") if self.chance_loss is not None else None
        return str(found) if found else None

    def _first(self, name: str) -> float | None:
        series = self.series(name)
        return float(series.value[0]) if series else None


_NOT_TRAINING = {"val", "valid", "validation", "test", "eval", "heldout", "dev"}


def _is_training_loss(name: str) -> bool:
    """Tell whether a name of the user's own (the metrics' names have a point) is that of a training loss.

    >>> [_is_training_loss(name) for name in ("train_loss", "loss", "val_loss", "loss.train", "lossless")]
    [True, True, False, False, False]
    """
    words = set(re.split(r"[_\-/ ]", name.lower()))
    return "." not in name and "loss" in words and not words & _NOT_TRAINING
