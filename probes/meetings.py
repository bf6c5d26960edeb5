"""At which steps all ranks meet: decided by the step alone, so that every rank comes to the same answer."""

from __future__ import annotations

from collections.abc import Iterable

from trainvitals.probes.schedule import AtSteps, Every, LogSpaced, Schedule, parts

# Where a budget or a schedule of the user's own decides, the leader alone knows what is wanted and when: its wishes
# wait for the next of these steps. One meeting is one sum of a few numbers.
MEETING_EVERY = 25
_BY_STEP_ALONE = (Every, LogSpaced, AtSteps)


class Meetings:
    """The steps at which ranks meet.

    Args:
        schedules: of what is measured together.
        is_paced: whether a budget puts off some of it.
    """

    def __init__(self, schedules: Iterable[Schedule], *, is_paced: bool) -> None:
        single = [part for schedule in schedules for part in parts(schedule)]
        self._known = [schedule for schedule in single if isinstance(schedule, _BY_STEP_ALONE)]
        self._has_waiting = bool(single) and (is_paced or len(self._known) < len(single))

    def at(self, step: int) -> bool:
        """Tell whether all ranks meet after this step.

        >>> from trainvitals.probes.schedule import every
        >>> [step for step in range(60) if Meetings([every(20)], is_paced=True).at(step)]
        [0, 20, 25, 40, 50]
        """
        return any(schedule.due(step) for schedule in self._known) or (self._has_waiting and step % MEETING_EVERY == 0)
