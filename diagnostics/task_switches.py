"""What a switch to another task does to the accuracy on each held-out set: how far it falls, and when it is back.

Legend: K held-out sets, s step of the last switch, A_k(t) accuracy on set k after t steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Part, Snapshot, Tier, or_missing
from trainvitals.diagnostics.by_layer import by_layer, in_words
from trainvitals.schema import Chart, Question, Reading, ReferenceLine

_FIX = "write {'task': {'switches': [1000, 2000]}}, the steps after which the task changes"


@dataclass
class Dip:
    """The course of one accuracy since a switch."""

    before: float  # at the last measurement at or before the switch
    lowest: float | None = None
    recovered: int | None = None  # step of the first measurement that is back, after the lowest that was not

    def add(self, step: int, accuracy: float, tolerance: float) -> None:
        """Take in the next measurement after the switch.

        >>> dip = Dip(before=0.9)
        >>> for step, accuracy in ((1, 0.6), (2, 0.5), (3, 0.9)):
        ...     dip.add(step, accuracy, 0.01)
        >>> dip
        Dip(before=0.9, lowest=0.5, recovered=3)
        """
        is_back = accuracy >= self.before - tolerance
        if self.lowest is None or accuracy < self.lowest:
            self.lowest = accuracy
            self.recovered = self.recovered if is_back else None
        if self.recovered is None and is_back:
            self.recovered = step


@dataclass
class TaskSwitches(Diagnostic):
    """Accuracy on each held-out set at the end of the last task, how far it has fallen since, and when it was back.

    Name the held-out sets by task (`heldout={"old": ..., "new": ...}`) and give the steps after which the task
    changes. Each part is (K,) with the sets as keys. `accuracy`: A(s), at the last measurement at or before the last
    switch (`details["before_step"]`). `gap.lowest`: the lowest accuracy measured since. `gap.depth`: A(s) less that;
    below 0 it has not fallen. `gap.recovery`: steps from the switch to the first measurement within `tolerance` of
    A(s) after the lowest that was not (to the first of all if none was not); sets that are not back are left out, and
    a deeper fall later begins anew. A fall between two measurements is not seen: the published gap shows at
    `every=1`. It remembers the run.

    Args:
        switches: the number of steps taken when the task changes, for each change.
        tolerance: of accuracy, within which it counts as back; our choice: about a standard error on 500 samples.
    """

    switches: Sequence[int] = ()
    tolerance: float = 0.01
    _last: tuple[int, Mapping[str, float]] | None = field(default=None, init=False, repr=False)
    _since: tuple[int, int, dict[str, Dip]] | None = field(default=None, init=False, repr=False)  # s, step before s

    name = "task"
    title = "Task switches"
    question = Question.OVERFITTING
    summary = "What switching to another task does to each held-out set's accuracy."
    formula = r"A_k(s) - \min_{t > s} A_k(t)"
    unit = "share of samples"
    undefined = (
        "No switches were given (option switches), none has happened, or nothing was measured before the last one; no "
        "held-out set; outputs without classes for the targets. Recovery: no set is back yet."
    )
    source = (
        "De Lange, van de Ven, Tuytelaars 2023, Continual evaluation for lifelong learning: Identifying the stability "
        "gap, section 3"
    )
    needs = Needs.HELDOUT
    tier = Tier.ON_REQUEST
    interval = 1
    chart = Chart.LINES
    keys = "set"
    passes = "one forward pass for each named set"
    parts = {
        "accuracy": Part(
            "Accuracy at the end of the task", "Accuracy on each held-out set when the last task ended.",
            formula="A_k(s)",
        ),
        "gap.depth": Part(
            "Depth of the stability gap", "How far the accuracy on each set has fallen since the last switch of task.",
            references=(ReferenceLine("has not fallen", 0.0, "by the definition"),),
        ),
        "gap.lowest": Part(
            "Lowest accuracy since the switch", "The lowest accuracy on each set since the last switch of task.",
            formula=r"\min_{t > s} A_k(t)",
        ),
        "gap.recovery": Part(
            "Steps to recover from the switch", "How many steps after the switch the accuracy on each set was back.",
            unit="steps", formula=r"\min\{t \ge t_{\text{lowest}} : A_k(t) \ge A_k(s) - \tau\} - s",
        ),
    }  # fmt: skip

    def __post_init__(self) -> None:
        steps = [int(step) for step in self.switches]
        if any(step < 0 for step in steps) or not 0 <= self.tolerance < 1:
            raise ValueError(
                f"expected steps of at least 0 and a tolerance from 0 to 1, got switches={steps} and "
                f"tolerance={self.tolerance!r} in options of 'task'; {_FIX}"
            )

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return the end of the last task, depth, lowest and recovery by set."""
        if not len(self.switches):
            raise Missing(f"no switches of task were given; {_FIX}")
        now, left_out = _accuracies(snapshot)
        if not now:
            raise Missing(in_words(left_out))
        last, self._last = self._last, (snapshot.step, now)
        switch = max((int(s) for s in self.switches if int(s) < snapshot.step), default=None)
        if switch is None:
            raise Missing("no task has been switched so far")
        if self._since is None or self._since[0] != switch:
            self._since = _begun(switch, last)
        _, before_step, dips = self._since
        for name, dip in dips.items():
            if name in now:
                dip.add(snapshot.step, now[name], self.tolerance)
        return _readings(switch, before_step, dips, left_out)


def _accuracies(snapshot: Snapshot) -> tuple[dict[str, float], dict[str, str]]:
    found, left_out = {}, {}
    for name, evaluation in snapshot.heldout_sets.items():
        try:
            found[name] = evaluation.accuracy()
        except Missing as reason:
            left_out[name] = str(reason)
    return found, left_out


def _begun(switch: int, last: tuple[int, Mapping[str, float]] | None) -> tuple[int, int, dict[str, Dip]]:
    if last is None or last[0] > switch:
        raise Missing(f"nothing was measured between the switch at step {switch} and the one before it")
    step, accuracies = last
    return switch, step, {name: Dip(before) for name, before in accuracies.items()}


def _readings(
    switch: int, before_step: int, dips: Mapping[str, Dip], left_out: Mapping[str, str]
) -> dict[str, Reading]:
    lowest = {name: dip.lowest for name, dip in dips.items() if dip.lowest is not None}
    back = {name: float(dip.recovered - switch) for name, dip in dips.items() if dip.recovered is not None}
    not_back = {name: "its accuracy is not back yet" for name in dips if name not in back}
    details = {"switch": switch, "before_step": before_step}

    def by_set(values: Mapping[str, float], without: Mapping[str, str]) -> Reading:
        reading = by_layer(values, without, "no held-out set was given")
        return Reading(reading.value, keys=reading.keys, details={**reading.details, **details})

    return {
        "accuracy": by_set({name: dip.before for name, dip in dips.items()}, left_out),
        "gap.depth": by_set({name: dips[name].before - low for name, low in lowest.items()}, left_out),
        "gap.lowest": by_set(lowest, left_out),
        "gap.recovery": or_missing(lambda: by_set(back, {**left_out, **not_back})),
    }
