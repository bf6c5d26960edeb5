"""The picker's words: a name alone where it is the only one, the date first where several bear it."""

import pytest

from trainvitals.schema import RunSummary, Status
from trainvitals.views.run_picker import option_text, started_at


def summary(status=Status.FINISHED, started=1.7e9, problem=None):
    return RunSummary("id", "digits", "path", status, started, started, 10, 10, problem)


@pytest.mark.parametrize(("run", "text"), [
    (summary(), "digits"), (summary(Status.LIVE), "digits · live"), (summary(problem="torn"), "digits · unreadable"),
])  # fmt: skip
def test_a_name_that_is_the_only_one_stands_alone(run, text):
    assert option_text(run, dated=False) == text


def test_one_of_several_has_its_date_first():
    assert option_text(summary()) == f"{started_at(summary())[5:]} · digits"
    assert len(started_at(summary())) == len("2026-11-21 18:58")
    assert option_text(summary(started=None)) == " · digits"
