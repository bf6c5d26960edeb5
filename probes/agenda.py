"""What is due at a step: exact schedules, and what a budget paces, with next to nothing to do where nothing is due."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from trainvitals.probes.budget import Budget
from trainvitals.probes.schedule import Every, Schedule, after

_LOOK = 0.01  # what waits for money is looked at again when the budget has earned this many seconds


class Agenda:
    """Says what to measure after each step.

    Args:
        schedules: of each diagnostic, by name.
        budget: decides over those that it paces; None: every schedule is followed exactly.
        paced: names of those.
        momentary: names of those that exist only at their step: dropped instead of waiting for money.
        step: that the run begins at.
    """

    def __init__(
        self,
        schedules: Mapping[str, Schedule],
        budget: Budget | None,
        paced: Collection[str],
        momentary: Collection[str],
        step: int,
    ) -> None:
        self._schedules = dict(schedules)
        self._budget = budget
        self._paced = frozenset(paced) if budget is not None else frozenset()
        self._momentary = frozenset(momentary)
        self._waiting: set[str] = set()  # due, or was due and could not be paid
        self._quiet_until = step  # no schedule is due before this step
        self._quiet_momentary = step  # nor one of a momentary diagnostic
        self._next_look = 0.0
        self._done: tuple[int, set[str]] = (-1, set())  # a step, and what was due there: it is not due twice
        self.clock = time.perf_counter
        self._wanted: dict[int, bool] = {}  # trajectories by step, decided once, for steps not yet measured

    def is_quiet(self, step: int) -> bool:
        """Tell quickly whether nothing can be due after this step."""
        return step < self._quiet_until and (self._budget is None or self.clock() < self._next_look)

    def due(self, step: int, now: float) -> list[str]:
        """Return the names of what to measure after this step, and forget that it was due."""
        names: list[str] = []
        if step >= self._quiet_until:
            self._done = self._done if self._done[0] == step else (step, set())
            names = [n for n in self._schedules if n not in self._done[1] and self._is_due(n, step)]
            self._done[1].update(names)
            self._quiet_until = min((self._next(name, step) for name in self._schedules), default=step + 1)
        wanted = self._wanted.pop(step, step == 0)  # there is none at step 0, and the run is to say so
        if self._momentary and not wanted:
            names = [name for name in names if name not in self._momentary]
        if self._budget is None:
            return names
        exact = [name for name in names if name not in self._paced]
        self._waiting.update(name for name in names if name in self._paced)
        self._next_look = now + _LOOK / self._budget.share
        if self._budget.plan(step, now):
            self._quiet_until = self._quiet_momentary = step + 1
        chosen = self._budget.chosen(self._waiting, now) if self._waiting else []
        self._waiting -= self._momentary | set(chosen)
        now_due = {*chosen, *exact}
        return [name for name in self._schedules if name in now_due]

    def wants_trajectory(self, step: int) -> bool:
        """Tell whether the trajectory will be read after a step: it is due there, and could be paid now.

        Asked first one step ahead, when copies have to begin, and then kept to.
        """
        if step < self._quiet_momentary and step not in self._wanted:
            return False
        if step not in self._wanted:
            due = [name for name in self._momentary if self._is_due(name, step)]
            paced = [name for name in due if name in self._paced]
            self._wanted[step] = bool(due) and (
                self._budget is None or len(paced) < len(due) or self._budget.can_pay(paced, self.clock())
            )
            if not due:
                self._quiet_momentary = min((self._next(name, step) for name in self._momentary), default=step + 1)
                del self._wanted[step]
                return False
        return self._wanted[step]

    def replanned(self) -> None:
        """Look at every schedule again: intervals have changed, or a condition holds."""
        self._quiet_until = self._quiet_momentary = 0

    def _interval(self, name: str) -> int | None:
        """Return the present number of steps between measurements of what goes by one."""
        if name in self._paced:
            assert self._budget is not None
            return self._budget.intervals.get(name)
        schedule = self._schedules[name]
        return schedule.num_steps if isinstance(schedule, Every) else None

    def _is_due(self, name: str, step: int) -> bool:
        interval = self._interval(name)
        return self._schedules[name].due(step) if interval is None else step % interval == 0

    def _next(self, name: str, step: int) -> int:
        """Return the next step at which it may be due."""
        interval = self._interval(name)
        if interval is not None:
            return step - step % interval + interval
        return after(self._schedules[name], step)
