import pandas as pd
import pytest

from trainvitals.schema import Evidence, Verdict, VerdictState
from trainvitals.views import verdict_words as words

ALARM, WATCH, HEALTHY, UNKNOWN = VerdictState.ALARM, VerdictState.WATCH, VerdictState.HEALTHY, VerdictState.UNKNOWN


@pytest.mark.parametrize(("states", "sentence"), [
    ([], "Too early to say: not enough has been measured yet."),
    ([UNKNOWN, UNKNOWN], "Too early to say: not enough has been measured yet."),
    ([HEALTHY, UNKNOWN], "Nothing is found to be wrong."),
    ([WATCH, HEALTHY], "Perhaps: C0, since step 1,000."),
    ([ALARM, WATCH], "Yes: C0, since step 1,000."),
])  # fmt: skip
def test_the_headline_answers_the_question(states, sentence):
    verdicts = [Verdict(f"c{i}", f"C{i}", state, 1000) for i, state in enumerate(states)]
    assert words.headline(verdicts) == sentence


def test_what_is_only_worth_knowing_is_no_trouble():
    known = Verdict("edge", "Edge of stability", WATCH, 10, is_informational=True)
    assert words.headline([known]) == "Nothing is found to be wrong."


def test_the_headline_names_the_cause_and_what_belongs_to_it():
    cause = Verdict("a", "A", WATCH, 0)
    effects = [Verdict(c, c.upper(), ALARM, 9, follows="a") for c in "bc"]
    assert words.headline([cause, *effects]) == "Yes: A, from the start, step 0. Probably part of it: B, C."
    assert words.headline([cause, effects[0]]) == "Yes: A, from the start, step 0. Probably part of it: B."


@pytest.mark.parametrize(("states", "sentence"), [
    ([HEALTHY], "1 condition, it could be checked."), ([ALARM, HEALTHY], "2 conditions, all could be checked."),
    ([HEALTHY, UNKNOWN, UNKNOWN], "3 conditions: 1 could be checked, 2 could not be judged."),
])  # fmt: skip
def test_what_could_be_checked_is_counted(states, sentence):
    assert words.coverage([Verdict(f"c{i}", "C", state) for i, state in enumerate(states)]) == sentence


@pytest.mark.parametrize(("missing", "way"), [
    ("grad.cosine: not measured", 'probes=["default", "grad.cosine"]'),
    ("attention.max_logit: not measured", 'probes=["default", "attention"], where the network has attention'),
    ("nc1: not measured (of three classes or more)", 'probes=["default", "nc1"]'),
    ("nc1: 2 of 4 measurements needed", "train on: it comes with more steps"),
    ("nc1: the samples have no class labels", "–"),
])  # fmt: skip
def test_what_lacks_measurements_says_how_to_get_them(missing, way):
    assert words.how_to_measure([missing]) == way


def test_the_evidence_says_what_it_is_from_and_whether_it_holds():
    held = Evidence("loss.heldout", 900, 1.25, "above", 1.1, "the paper", "it has turned", key="fc1", since=700)
    not_held = Evidence("mia_auc", 900, 0.5, "above", 0.6, "bank", holds=False)
    table = words.evidence_table(Verdict("o", "O", ALARM, evidence=(held, not_held)))
    assert table.iloc[0].to_list() == ["it has turned", "1.25", "above 1.1", "yes", "step 700",
                                       "loss.heldout of fc1, step 900", "the paper"]  # fmt: skip
    assert table["Holds"].to_list() == ["yes", "no"]
    assert words.would_change_its_mind(Verdict("o", "O", ALARM, evidence=(held, not_held))) == (
        "it has turned: back to 1.1 or below"
    )


def test_unknown_conditions_say_what_is_missing():
    missing = Verdict("a", "A", UNKNOWN, missing=("nc1: not measured",))
    verdicts = [missing, Verdict("b", "B", UNKNOWN, summary="Short."), Verdict("c", "C", HEALTHY)]
    rows = [("A", "nc1: not measured", 'probes=["default", "nc1"]'), ("B", "Short.", "–")]
    expected = pd.DataFrame(rows, columns=["Condition", "What is missing", "How to measure it"])
    pd.testing.assert_frame_equal(words.unknown_table(verdicts), expected)
