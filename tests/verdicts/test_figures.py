"""Figures in sentences: each with its unit and its level, what is past with its own step."""

import numpy as np
import pytest

from trainvitals.schema import Evidence
from trainvitals.verdicts.figures import figure, filled, sentences, with_level
from trainvitals.verdicts.series import Series
from trainvitals.verdicts.sign import ABOVE, BELOW, Sign


@pytest.mark.parametrize(("value", "kind", "text"), [
    (0.0, "share", "0 %"), (1.0, "share", "100 %"), (0.0214, "share", "2.1 %"), (1.06, "share", "106 %"), (0.689,
                                                                                                           "share",
                                                                                                           "69 %"),
                                                                                                           (0.998,
                                                                                                            "share",
                                                                                                            "99.8 %"),
    (-0.5, "points", "−50 percentage points"), (1628.3, "", "1,628"), (0.3, "", "0.3"), (-0.654, "", "−0.654"),
    (10.67, "part", "all"), (1.0, "part", "all"), (0.5, "part", "50 %"),
])  # fmt: skip
def test_a_figure_has_its_unit_and_three_digits(value, kind, text):
    assert figure(value, kind) == text


def test_the_level_is_given_as_the_value_is():
    told = with_level("the rank is {value:share} of its largest", 0.1, "below", 0.15, "m")
    assert told == "the rank is 10 % of its largest (counts below 15 %)"
    assert with_level("it rose", 2.0, "above", 1.0, "the loss").startswith("it rose, the loss is 2 (")


def test_a_foreign_name_in_braces_is_left_as_it_is():
    assert filled("layer {0} and {value!r} of {value}", 3.0) == "layer {0} and {value!r} of 3"


def test_what_is_past_has_a_sentence_of_its_own_with_its_own_step():
    now = [Evidence("m", step, 1.0, ABOVE, 0.5, "", sentence=f"now {step}") for step in (600, 610)]
    past = Evidence("m", 140, 1.0, ABOVE, 0.5, "", sentence="it was above", is_past=True)
    short = Evidence("m", 600, 0.1, ABOVE, 0.5, "", words="nothing", holds=False)
    assert sentences("Head", [now[0], past, now[1], short]) == (
        "Head. At steps 600 to 610, now 600; now 610. At step 140, it was above.")  # fmt: skip


def test_an_extreme_that_is_kept_is_told_at_the_step_at_which_it_was_reached():
    value = np.maximum.accumulate(np.r_[np.zeros(10), 5.0, 8.0, 1.0, np.linspace(0, 1, 20)])
    value[15:] += np.linspace(0, 0.1, len(value) - 15)  # creeps on
    sign = Sign(Series("m", np.arange(len(value)) * 10, value), 3.0, ABOVE, "", "it rose to {value}", patience=1,
                once=True)
    found = sign.evidence()
    assert (found.step, found.value, found.is_past, found.holds) == (110, 8.0, True, True)
    assert sentences("Head", [found]) == "Head. At step 110, it rose to 8 (counts above 3)."


def test_what_holds_now_is_told_at_the_newest_step():
    sign = Sign(Series("m", np.arange(5) * 10, np.array([5.0, 1, 1, 1, 0.5])), 2.0, BELOW, "", "it is {value}")
    found = sign.evidence()
    assert (found.step, found.is_past, found.since) == (40, False, 10)
