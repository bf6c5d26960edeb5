import pandas as pd
import pytest

from trainvitals.schema import Evidence, Verdict, VerdictState
from trainvitals.views import verdict_words as words

ALARM, WATCH, HEALTHY, UNKNOWN = VerdictState.ALARM, VerdictState.WATCH, VerdictState.HEALTHY, VerdictState.UNKNOWN


@pytest.mark.parametrize(("states", "sentence"), [
    ([], "Too early to say: not enough has been measured yet."),
    ([UNKNOWN, UNKNOWN], "Too early to say: not enough has been measured yet."),
    ([HEALTHY, UNKNOWN], "Nothing is found to be wrong. 1 condition checked, 1 not measured well enough."),
    ([WATCH, HEALTHY], "Perhaps: C0, since step 1,000. 2 conditions checked."),
    ([ALARM, WATCH], "Yes: C0, since step 1,000. 2 conditions checked."),
])  # fmt: skip
def test_the_headline_answers_the_question(states, sentence):
    verdicts = [Verdict(f"c{i}", f"C{i}", state, 1000) for i, state in enumerate(states)]
    assert words.headline(verdicts) == sentence


def test_what_is_only_worth_knowing_is_no_trouble():
    known = Verdict("edge", "Edge of stability", WATCH, 10, is_informational=True)
    assert words.headline([known]) == "Nothing is found to be wrong. 1 condition checked."


def test_the_evidence_says_what_it_is_from_and_whether_it_holds():
    held = Evidence("loss.heldout", 900, 1.25, "above", 1.1, "the paper", "it has turned", key="fc1", holds=True)
    not_held = Evidence("mia_auc", 900, 0.5, "above", 0.6, "bank", holds=False)
    table = words.evidence_table(Verdict("o", "O", ALARM, evidence=(held, not_held)))
    assert table.iloc[0].to_list() == ["it has turned", "1.25", "above 1.1", "yes", "loss.heldout of fc1, step 900",
                                       "the paper"]  # fmt: skip
    assert table["Holds"].to_list() == ["yes", "no"]
    assert words.would_change_its_mind(Verdict("o", "O", ALARM, evidence=(held, not_held))) == (
        "it has turned: back to 1.1 or below"
    )


def test_unknown_conditions_say_what_is_missing():
    missing = Verdict("a", "A", UNKNOWN, missing=("nc1: not measured",))
    verdicts = [missing, Verdict("b", "B", UNKNOWN, summary="Short."), Verdict("c", "C", HEALTHY)]
    expected = pd.DataFrame([("A", "nc1: not measured"), ("B", "Short.")], columns=["Condition", "What is missing"])
    pd.testing.assert_frame_equal(words.unknown_table(verdicts), expected)
