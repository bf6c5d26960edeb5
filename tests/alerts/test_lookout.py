import time
from dataclasses import dataclass, field

import pytest

from trainvitals.alerts import Alert, AlertError
from trainvitals.alerts.lookout import Lookout
from trainvitals.schema import Verdict, VerdictState


@dataclass(frozen=True)
class Told(Alert):
    messages: list = field(default_factory=list)
    error: Exception | None = None

    def send(self, verdict, run_name):
        self.messages.append((run_name, verdict.condition, str(verdict.state)))
        if self.error is not None:
            raise self.error


def lookout(states, *alerts, **options):
    """Return a lookout on a run with one condition that goes through `states`, a look at a time."""
    left = iter(states)
    return Lookout(lambda: [Verdict("x", "X", next(left))], "digits", alerts=alerts, **options)


def test_alerts_are_told_of_an_alarm_once_and_again_after_it_was_healthy():
    told = Told()
    looking = lookout(["watch", "alarm", "alarm", "watch", "alarm", "healthy", "alarm"], told)
    for _ in range(7):
        looking.look()
    assert told.messages == [("digits", "x", "alarm")] * 2


def test_take_gives_every_change_once():
    looking = lookout([VerdictState.WATCH, VerdictState.ALARM, VerdictState.HEALTHY], keep=True)
    looking.look()
    looking.look()
    assert [str(v.state) for v in looking.take()] == ["watch", "alarm"]
    assert looking.take() == []
    looking.look()
    assert [str(v.state) for v in looking.take()] == ["healthy"]


@pytest.mark.parametrize("error", [AlertError("expected hooks.example to take the alert"), KeyError("x")])
def test_an_alert_that_fails_is_said_once_and_the_others_are_told(error, caplog):
    broken, told = Told(error=error), Told()
    looking = lookout(["alarm", "healthy", "alarm"], broken, told)
    for _ in range(3):
        looking.look()
    assert len(told.messages) == 2
    assert len(caplog.records) == 1


def test_a_run_that_cannot_be_read_is_said_and_looked_at_again(caplog):
    looks = []

    def verdicts():
        looks.append(1)
        if len(looks) == 1:
            raise OSError("moved away")
        return [Verdict("x", "X", VerdictState.ALARM)]

    told = Told()
    looking = Lookout(verdicts, "digits", alerts=[told], seconds_between=0.01)
    looking.start()
    deadline = time.monotonic() + 20
    while not told.messages and time.monotonic() < deadline:
        time.sleep(0.01)
    looking.close()
    assert told.messages == [("digits", "x", "alarm")]
    assert "moved away" in caplog.text


def test_closing_looks_once_more():
    told = Told()
    looking = lookout(["alarm"], told, seconds_between=3600)
    looking.start()
    looking.close()
    assert told.messages == [("digits", "x", "alarm")]
