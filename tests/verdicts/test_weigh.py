"""From signs to states: how many, of how many kinds, with which leading and which against."""

import numpy as np
import pytest

from trainvitals.schema import VerdictState
from trainvitals.verdicts.series import Series
from trainvitals.verdicts.sign import ABOVE, Sign
from trainvitals.verdicts.weigh import weigh


def sign(begins, name="m", n=40, **more):
    """A sign whose series steps up at an index; None: never."""
    values = np.zeros(n)
    if begins is not None:
        values[begins:] = 2.0
    return Sign(Series(name, np.arange(n) * 10, values), 1.0, ABOVE, "a test", f"{name} rose", **more)


def test_one_sign_is_a_watch_and_two_are_an_alarm():
    assert weigh([sign(None), sign(None)]).state == VerdictState.HEALTHY
    assert weigh([sign(5), sign(None)]).state == VerdictState.WATCH
    assert weigh([sign(5), sign(8)]).state == VerdictState.ALARM


def test_signs_of_one_kind_count_once():
    found = weigh([sign(5, kind="loss"), sign(5, kind="loss")])
    assert found.state == VerdictState.WATCH
    assert found.confidence == pytest.approx(0.7)


def test_without_a_leading_sign_the_others_say_nothing():
    leading = sign(None)
    assert weigh([leading, sign(5), sign(5)], leading=[leading]).state == VerdictState.HEALTHY


def test_a_sign_against_it_silences_it():
    assert weigh([sign(5), sign(5)], against=[sign(9)]).state == VerdictState.HEALTHY


def test_it_was_noticed_when_enough_held_and_began_with_the_leading_sign():
    leading = sign(10)
    found = weigh([sign(20), leading], watch=2, leading=[leading])
    assert (found.since, found.noticed) == (100, 220)


def test_a_spell_that_ended_is_forgotten():
    values = np.zeros(60)
    values[10:20] = values[40:] = 2.0
    found = weigh([Sign(Series("m", np.arange(60), values), 1.0, ABOVE, "a test", "it rose")])
    assert (found.since, found.noticed) == (40, 42)


def test_signs_on_unlike_steps_are_carried_forward():
    rare = Sign(Series("rare", np.array([0, 100, 200, 300]), np.array([2.0, 2, 2, 2])), 1.0, ABOVE, "a test", "rare")
    found = weigh([rare, sign(5)])
    assert found.state == VerdictState.ALARM
    assert found.noticed == 70
    assert found.num_held[-1] == 2


def test_signs_without_points_are_left_out():
    assert weigh([sign(None, n=0)]).state == VerdictState.HEALTHY
    assert weigh([]).confidence == 0.0


def test_the_sentence_gives_what_holds_with_its_figures():
    judgement = weigh([sign(5, "a"), sign(None, "b")]).judgement("It is there", "It is not there")
    assert judgement.summary == "It is there. At step 390, a rose, a is 2 (counts above 1)."
    assert [e.holds for e in judgement.evidence] == [True, False]


def test_the_sentence_of_health_gives_what_came_nearest():
    judgement = weigh([sign(None, "a")]).judgement("It is there", "It is not there")
    assert judgement.summary == "It is not there: a is 0 at step 390, not above 1."


def test_what_was_not_measured_lowers_the_confidence():
    found = weigh([sign(5)])
    assert found.judgement("x", "y", ["m: not measured"]).confidence < found.judgement("x", "y").confidence
    assert found.judgement("x", "y", ["m: not measured"]).missing == ("m: not measured",)


def test_a_sign_that_repeats_a_number_counts_and_is_not_told():
    found = weigh([sign(5, "a"), sign(5, "b", repeats=True)])
    assert found.state == VerdictState.ALARM
    assert "b rose" not in found.judgement("x", "y").summary
