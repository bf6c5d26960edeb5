"""The condition: what it says of a run, what it reads, and how it judges. One condition a file, found by walking."""

from __future__ import annotations

import abc
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import trainvitals.verdicts
from trainvitals.schema import Advice, Evidence, VerdictState
from trainvitals.verdicts.run_facts import RunFacts


@dataclass(frozen=True)
class Judgement:
    """What a condition finds in a run; the engine adds its name and advice. Fields as in `schema.Verdict`."""

    state: VerdictState
    summary: str
    since: int | None = None
    noticed: int | None = None
    confidence: float = 0.0
    evidence: tuple[Evidence, ...] = ()
    missing: tuple[str, ...] = ()
    head: str = ""  # the summary without its evidence
    title: str = ""  # in place of the condition's own, where it can name what it is about
    advice: tuple[Advice, ...] = ()  # in place of the condition's own, where it can name steps


class Condition(abc.ABC):
    """One thing that may be said of a run. Subclass it once: a condition is abstract or final.

    Conditions keep no state: a judgement depends on the series alone, so it is the same live, on a finished run
    and on a replay of its beginning. Numbers are compared with the run's own scale, loss and optimiser.
    """

    id: ClassVar[str]  # "overfitting"
    title: ClassVar[str]  # "Overfitting"
    says: ClassVar[str]  # one sentence for a newcomer: what it means
    reads: ClassVar[tuple[str, ...]]  # metrics that it can make use of
    source: ClassVar[str]  # paper and section
    advice: ClassVar[tuple[Advice, ...]]  # what to try, the best first
    is_informational: ClassVar[bool] = False  # no illness: it never goes beyond `watch`
    precedence: ClassVar[int] = 50  # causes before what they bring about: the smaller is read first
    follows: ClassVar[tuple[str, ...]] = ()  # ids of the conditions that can bring it about
    symptoms: ClassVar[tuple[str, ...]] = ()  # what it is about, of `sign.SYMPTOMS`: others may tell of it too
    rests_on: ClassVar[tuple[str, ...]] = ()  # metrics without whose values of now it cannot be called healthy

    @abc.abstractmethod
    def judge(self, run: RunFacts) -> Judgement:
        """Return what is found in the run.

        Raises:
            Unmeasured: if what it cannot do without was not measured; the engine makes it `unknown`.
        """


@cache
def conditions() -> tuple[Condition, ...]:
    """Return every condition of this folder, in the order of the ids.

    Raises:
        ImportError: if two conditions have the same id, with both modules' names.
    """
    found: dict[str, Condition] = {}
    for cls in _discover():
        other = found.setdefault(cls.id, cls())
        if type(other) is not cls:
            raise ImportError(
                f"expected one condition per id, got {cls.id!r} from both {type(other).__module__} "
                f"and {cls.__module__}; rename one of them"
            )
    return tuple(found[id] for id in sorted(found))


def _discover() -> Iterator[type[Condition]]:
    for info in pkgutil.iter_modules(trainvitals.verdicts.__path__, "trainvitals.verdicts."):
        for _, cls in inspect.getmembers(importlib.import_module(info.name), inspect.isclass):
            if cls.__module__ == info.name and issubclass(cls, Condition) and not inspect.isabstract(cls):
                yield cls
