from trainvitals.alerts.onsets import Onsets
from trainvitals.schema import Verdict, VerdictState

HEALTHY, WATCH, ALARM, UNKNOWN = VerdictState.HEALTHY, VerdictState.WATCH, VerdictState.ALARM, VerdictState.UNKNOWN


def looks(*states):
    """Return what is new at each of these looks at one condition."""
    onsets = Onsets()
    return [[str(v.state) for v in onsets.changed([Verdict("x", "X", state)])] for state in states]


def test_a_state_is_new_once():
    assert looks(HEALTHY, ALARM, ALARM, HEALTHY) == [[], ["alarm"], [], ["healthy"]]


def test_the_first_look_tells_only_of_what_is_not_well():
    assert looks(HEALTHY) == [[]]
    assert looks(WATCH) == [["watch"]]


def test_unknown_is_no_news_and_forgets_nothing():
    assert looks(ALARM, UNKNOWN, ALARM, UNKNOWN, HEALTHY) == [["alarm"], [], [], [], ["healthy"]]


def test_conditions_are_told_apart():
    onsets = Onsets()
    onsets.changed([Verdict("a", "A", ALARM)])
    assert [v.condition for v in onsets.changed([Verdict("a", "A", ALARM), Verdict("b", "B", WATCH)])] == ["b"]
