"""Ranks meet at the same steps without a word: whatever a clock or a condition says on one of them."""

from trainvitals.probes.meetings import MEETING_EVERY, Meetings
from trainvitals.probes.schedule import at_steps, every, log_spaced


class WhenItLikes:
    """A schedule of the user's own, which may look at what only one rank knows."""

    def due(self, step):
        raise AssertionError("asked on a rank that cannot know")


def steps_of(meetings, stop=101):
    return [step for step in range(stop) if meetings.at(step)]


def test_schedules_by_step_need_no_other_meeting():
    assert steps_of(Meetings([every(40), at_steps([7])], is_paced=False)) == [0, 7, 40, 80]
    assert steps_of(Meetings([log_spaced(1)], is_paced=False)) == [0, 1, 10, 100]


def test_with_a_budget_what_waits_is_asked_for_regularly():
    found = steps_of(Meetings([every(60)], is_paced=True))
    assert found == sorted({0, 60, *range(0, 101, MEETING_EVERY)})


def test_a_schedule_of_ones_own_is_asked_on_the_first_rank_alone():
    assert steps_of(Meetings([WhenItLikes()], is_paced=False)) == list(range(0, 101, MEETING_EVERY))


def test_of_joined_schedules_the_part_by_step_is_kept_to():
    found = steps_of(Meetings([every(40) | WhenItLikes()], is_paced=False))
    assert found == sorted({0, 40, 80, *range(0, 101, MEETING_EVERY)})


def test_where_nothing_is_measured_together_nobody_meets():
    assert steps_of(Meetings([], is_paced=True)) == []
