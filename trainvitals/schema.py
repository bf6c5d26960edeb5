"""The words that every layer shares: readings, records, descriptions, questions, statuses.

Only the standard library is imported here, so that the dashboard can speak of metrics without torch
and a run file can be read by a program that has neither.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

SCHEMA_VERSION = 1


class Question(StrEnum):
    """A page of the dashboard: the question that its charts answer."""

    OVERFITTING = "Is it overfitting?"
    SHARPNESS = "How sharp is it?"
    GRADIENTS = "Do the gradients agree?"
    STABILITY = "Is it stable?"
    REPRESENTATION = "What has it learned?"
    WEIGHTS = "Which weights grow?"
    SAMPLES = "Which samples?"
    CHECKPOINTS = "Checkpoints"


class Chart(StrEnum):
    """How one metric is drawn. The diagnostic names it, `views/charts.py` draws it."""

    LINE = "line"  # one number a step
    LINES = "lines"  # a few named numbers a step, a line each
    HEATMAP = "heatmap"  # one number per key and step: key × step, colour is the value
    WATERFALL = "waterfall"  # a density over a grid at every measured step
    PLANE = "plane"  # named points on a plane, with samples around them
    LANDSCAPE = "landscape"  # losses on a grid around the weights: a curve, or a plane with contour lines


class Scale(StrEnum):
    """The value axis of a chart."""

    LINEAR = "linear"
    LOG = "log"
    SYMLOG = "symlog"  # linear around zero, logarithmic outside: signed values over decades


class Status(StrEnum):
    """What a run is doing, as a reader sees it."""

    LIVE = "live"
    STALLED = "stalled"  # the process is there (or on another machine) and its heartbeat is old
    CRASHED = "crashed"  # the process is gone without a goodbye, or it ended on an error
    FINISHED = "finished"


@dataclass(frozen=True)
class ReferenceLine:
    """A published level drawn across a chart. `upper` makes it a band; `source` stands beside it."""

    label: str
    value: float
    source: str
    upper: float | None = None


@dataclass(frozen=True)
class Description:
    """All that a chart, a card or a table has to know of a metric, stored in every run.

    The dashboard draws from this alone: a run recorded by another version, or with a third party's
    diagnostic, needs no code of that version to be shown.
    """

    name: str  # "hessian.top"
    title: str  # "Largest Hessian eigenvalues"
    question: str  # a Question's text; pages of unknown questions are shown too
    summary: str  # one sentence: what this shows
    formula: str = ""  # LaTeX
    unit: str = "1"  # "1" is dimensionless
    undefined: str = ""  # when the metric is missing, in words
    source: str = ""  # paper and section
    chart: str = Chart.LINE
    scale: str = Scale.LINEAR
    keys: str = ""  # what the keys of an array are: "layer", "class", "rank", "grid"
    version: int = 1  # of the definition
    cost: str = ""  # needs in words: "one forward pass", "Hessian products"
    references: tuple[ReferenceLine, ...] = ()

    def to_json(self) -> str:
        """Return the description as one JSON object."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Description:
        """Read a description; fields of a newer version are left out, missing ones take defaults."""
        raw = json.loads(text)
        known = {f.name for f in dataclasses.fields(cls)}
        raw = {key: value for key, value in raw.items() if key in known}
        lines = {f.name for f in dataclasses.fields(ReferenceLine)}
        raw["references"] = tuple(
            ReferenceLine(**{k: v for k, v in line.items() if k in lines})
            for line in raw.get("references", ())
        )
        return cls(**raw)


@dataclass(frozen=True)
class Reading:
    """One metric at one moment: the number, how right it is, and what it cost.

    `value` is a float, a 1-D or a 2-D array (one row per key), or None when the metric is undefined
    here, and then `missing` says why. `error` has the shape of `value` or is None for exact numbers.
    """

    value: Any = None
    error: Any = None  # standard error or residual bound, in the unit of the value
    converged: bool | None = None  # None: nothing to converge
    keys: tuple[str, ...] = ()  # layer or class names of the rows of an array
    missing: str | None = None
    definition: str = ""  # "hessian.top v1"
    hvps: int = 0  # Hessian-vector products spent
    seconds: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)  # residuals, grid, eigenvectors…
    provenance: Mapping[str, Any] = field(default_factory=dict)  # step, batch hash, mode, dtype, passes

    @classmethod
    def absent(cls, reason: str) -> Reading:
        """Return the reading of a metric that is undefined here, with the reason in words."""
        return cls(missing=reason)


@dataclass(frozen=True)
class Record:
    """Everything written for one step: readings by metric name, and plain numbers the user logged."""

    step: int
    time: float  # seconds since the epoch
    readings: Mapping[str, Reading] = field(default_factory=dict)
    scalars: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """Something that happened to the run, in words: a warning, the end, dropped points."""

    step: int
    time: float
    kind: str  # "warning", "dropped", "finished", "interrupted", "error"
    message: str


class VerdictState(StrEnum):
    """What a verdict says of one condition."""

    HEALTHY = "healthy"
    WATCH = "watch"  # some evidence, or something worth knowing that is no illness
    ALARM = "alarm"  # several independent pieces of evidence
    UNKNOWN = "unknown"  # not enough evidence, and `missing` says which


@dataclass(frozen=True)
class Evidence:
    """One measured number beside the level that it is compared with."""

    metric: str
    step: int  # of the measurement
    value: float
    comparison: str  # "above" or "below": the side of the threshold that speaks for the condition
    threshold: float
    source: str  # where the threshold comes from
    words: str = ""  # what it means, as a clause that is true of `value`
    key: str = ""  # layer or class, if the metric has one number for each
    quantity: str = ""  # what the value is, where it is worked out from the metric: "loss over that of guessing"
    holds: bool = True  # False: measured, and on the other side of the threshold
    since: int | None = None  # the step from which on it has held
    is_past: bool = False  # it tells of what happened at `step`, whatever came after
    sentence: str = ""  # words, value and threshold as one clause without its step, if it holds
    repeats: bool = False  # it says more of a number that evidence before it gives: it counts, and is not told again
    symptom: str = ""  # what is to be seen, where other conditions are about it too: "the weights grew"


@dataclass(frozen=True)
class Advice:
    """What to try, and the paper behind it."""

    text: str
    source: str


@dataclass(frozen=True)
class Verdict:
    """What is to be said of a run about one condition."""

    condition: str  # stable id, as "overfitting"
    title: str
    state: VerdictState
    since: int | None = None  # the step at which the condition began
    noticed: int | None = None  # the step from which on the measurements were enough to tell
    confidence: float = 0.0  # in [0, 1], that the state is right; 0 for unknown
    summary: str = ""  # a sentence with the figures
    evidence: tuple[Evidence, ...] = ()
    advice: tuple[Advice, ...] = ()
    missing: tuple[str, ...] = ()  # metrics, or reasons in words, that would have told more
    is_informational: bool = False  # something to know, not an illness: never an alarm
    head: str = ""  # the summary's first sentence, without the evidence
    follows: str = ""  # id of the condition that probably brought this one about; it stands right behind that one
    relation: str = ""  # in words, when it began beside that condition
    covered_by: str = ""  # of a healthy one: id of what is found and tells of the same symptom already

    def to_json(self) -> str:
        """Return the verdict as one JSON object."""
        return json.dumps(dataclasses.asdict(self))


@dataclass(frozen=True)
class RunSummary:
    """A run as a list shows it. `problem` is set, and the rest may be empty, if its file is unreadable."""

    id: str
    name: str
    path: str
    status: Status | None
    started: float | None  # seconds since the epoch
    updated: float | None  # last heartbeat
    last_step: int | None
    num_points: int | None
    problem: str | None = None
    tags: tuple[str, ...] = ()
