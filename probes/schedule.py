"""When to measure: schedules as phrases, and what `every=` may say."""

from __future__ import annotations

import abc
import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Protocol

from trainvitals.diagnostics.base import Diagnostic
from trainvitals.diagnostics.registry import PRESETS, matching


class Schedule(Protocol):
    """Says whether a step is due. Step 0 is before the first optimiser step."""

    def due(self, step: int) -> bool:
        """Tell whether to measure after this many optimiser steps."""
        ...


NEVER = 2**62  # a step that no run reaches


class Combinable(abc.ABC):
    """A schedule that `|` joins with another: due where either is."""

    @abc.abstractmethod
    def due(self, step: int) -> bool:
        """Tell whether to measure after this many optimiser steps."""

    def __or__(self, other: Any) -> Either:
        return Either(self, as_schedule(other))

    def __ror__(self, other: Any) -> Either:
        return Either(as_schedule(other), self)


@dataclass(frozen=True)
class Either(Combinable):
    """Due where one of two schedules is. Made by `|`.

    >>> [step for step in range(31) if (every(10) | at_steps([7]) | "log").due(step)][:8]
    [0, 1, 2, 3, 4, 5, 6, 7]
    """

    one: Schedule
    other: Schedule

    def due(self, step: int) -> bool:
        """Tell whether the step is one of either."""
        return self.one.due(step) or self.other.due(step)

    def after(self, step: int) -> int:
        """Return the next step that may be due."""
        return min(after(self.one, step), after(self.other, step))

    def fresh(self) -> Either:
        """Return the same schedule for another run."""
        return Either(as_schedule(self.one), as_schedule(self.other))

    def __str__(self) -> str:
        return f"{self.one} and {self.other}"


def after(schedule: Schedule, step: int) -> int:
    """Return the next step that may be due: the very next one for a schedule that cannot say."""
    known = getattr(schedule, "after", None)
    return step + 1 if known is None else known(step)


def parts(schedule: Schedule) -> tuple[Schedule, ...]:
    """Return the schedules that `|` has joined, or the one itself."""
    if isinstance(schedule, Either):
        return (*parts(schedule.one), *parts(schedule.other))
    return (schedule,)


@dataclass(frozen=True)
class Every(Combinable):
    """Every `num_steps` steps, step 0 included."""

    num_steps: int

    def due(self, step: int) -> bool:
        """Tell whether the step is a multiple of `num_steps`."""
        return step % self.num_steps == 0

    def after(self, step: int) -> int:
        """Return the next multiple."""
        return step - step % self.num_steps + self.num_steps

    def __str__(self) -> str:
        return "every step" if self.num_steps == 1 else f"every {self.num_steps} steps"


@dataclass(frozen=True)
class LogSpaced(Combinable):
    """Steps spread evenly on a log axis, `per_decade` of them in each factor of ten, and step 0."""

    per_decade: int = 10

    def due(self, step: int) -> bool:
        """Tell whether the step is the nearest whole one to a point of the log grid."""
        if step <= 1:
            return True
        index = round(math.log10(step) * self.per_decade)
        return round(10 ** (index / self.per_decade)) == step

    def after(self, step: int) -> int:
        """Return the next of them."""
        if step < 1:
            return 1
        index = math.floor(math.log10(step) * self.per_decade)
        while (found := round(10 ** (index / self.per_decade))) <= step:
            index += 1
        return found

    def __str__(self) -> str:
        return f"{self.per_decade} steps a decade"


@dataclass(frozen=True)
class AtSteps(Combinable):
    """Exactly these steps."""

    steps: frozenset[int]

    def due(self, step: int) -> bool:
        """Tell whether the step is one of them."""
        return step in self.steps

    def after(self, step: int) -> int:
        """Return the next of them."""
        return min((at for at in self.steps if at > step), default=NEVER)

    def __str__(self) -> str:
        return f"at {len(self.steps)} given steps"


def every(num_steps: int) -> Schedule:
    """Measure every `num_steps` steps.

    Raises:
        ValueError: if `num_steps` is not a whole number of at least 1.

    >>> [step for step in range(7) if every(3).due(step)]
    [0, 3, 6]
    """
    return Every(whole(num_steps, 1, "every=", "write every=10, or leave a metric out of probes= to switch it off"))


def log_spaced(per_decade: int = 10) -> Schedule:
    """Measure at steps spread evenly on a log axis.

    Raises:
        ValueError: if `per_decade` is not a whole number of at least 1.

    >>> [step for step in range(101) if log_spaced(2).due(step)]
    [0, 1, 3, 10, 32, 100]
    """
    return LogSpaced(whole(per_decade, 1, "log_spaced", "write log_spaced(10) for ten steps a decade"))


def at_steps(steps: Iterable[int]) -> Schedule:
    """Measure at exactly these steps.

    Raises:
        ValueError: if they are not whole numbers of at least 0.

    >>> at_steps([5, 100]).due(100)
    True
    """
    hint = "write at_steps([0, 100, 1000])"
    if not isinstance(steps, Iterable):
        raise ValueError(f"expected a list of steps, got {steps!r} in at_steps; {hint}")
    return AtSteps(frozenset(whole(step, 0, "at_steps", hint) for step in steps))


def whole(number: Any, least: int, call: str, hint: str) -> int:
    """Return a number of steps.

    Raises:
        ValueError: if it is no whole number of at least `least`, in the words of the call.
    """
    if isinstance(number, bool) or not isinstance(number, Integral) or number < least:
        raise ValueError(f"expected a whole number of steps of at least {least}, got {number!r} in {call}; {hint}")
    return int(number)


def as_schedule(phrase: Any) -> Schedule:
    """Return the schedule that a number, "log", or a schedule object stands for; one that listens begins anew.

    Raises:
        ValueError: if it is none of these.
    """
    if phrase == "log":
        return LogSpaced()
    if hasattr(phrase, "due"):
        return phrase.fresh() if hasattr(phrase, "fresh") else phrase
    return every(phrase)


def dear_of_presets(diagnostics: Iterable[Diagnostic], probes: Any, phrase: Any) -> frozenset[str]:
    """Return the names of what is dear and came with a preset: neither `probes` nor `phrase` names it.

    Hessian products, per-sample gradients and passes of their own take tens of training steps each time. Who gives a
    schedule and a preset has asked for neither their price nor for them.
    """
    given = [probes] if isinstance(probes, str) else list(probes)
    given += list(phrase) if isinstance(phrase, Mapping) else []
    named: set[str] = set()
    for name in given:
        if name not in PRESETS:
            with suppress(ValueError):  # `schedules_for` says what is wrong with it
                named.update(cls.name for cls in matching(name))
    return frozenset(d.name for d in diagnostics if d.is_dear() and d.name not in named)


def schedules_for(diagnostics: Iterable[Diagnostic], phrase: Any) -> dict[str, Schedule]:
    """Return a schedule for each diagnostic, by its name.

    Args:
        diagnostics: what will be measured.
        phrase: None (each diagnostic's own interval), one phrase for all, or a mapping from names and
            groups to phrases; the more particular name wins, whatever the order.

    Raises:
        ValueError: if a name in the mapping is not measured, or a phrase is not one.
    """
    chosen = {d.name: as_schedule(d.interval) for d in diagnostics}
    if phrase is None:
        return chosen
    if not isinstance(phrase, Mapping):
        return dict.fromkeys(chosen, as_schedule(phrase))
    covered = {name: [cls.name for cls in matching(name) if cls.name in chosen] for name in phrase}
    for name in sorted(phrase, key=lambda name: -len(covered[name])):
        if not covered[name]:
            raise ValueError(
                f"expected names of metrics that are measured, got {name!r} in every=; "
                f"measured are {', '.join(sorted(chosen))}: add {name!r} to probes= or leave it out"
            )
        for metric in covered[name]:
            chosen[metric] = as_schedule(phrase[name])
    return chosen
