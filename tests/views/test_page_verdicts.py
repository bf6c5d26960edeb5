"""Which verdicts stand on which page, and in which words."""

from trainvitals.schema import Question, Verdict, VerdictState
from trainvitals.verdicts.condition import conditions
from trainvitals.views.page_verdicts import QUESTIONS, first_sentences, of_question


def test_every_condition_has_a_page_and_no_other_is_named():
    assert set(QUESTIONS) == {condition.id for condition in conditions()}
    assert all(QUESTIONS.values())


def test_every_page_of_a_question_has_a_condition_but_checkpoints():
    assert {q for pages in QUESTIONS.values() for q in pages} == set(Question) - {Question.CHECKPOINTS}


def test_a_page_has_its_own_verdicts_in_their_order():
    given = [Verdict("overfitting", "O", VerdictState.ALARM), Verdict("dead_units", "D", VerdictState.HEALTHY),
             Verdict("label_noise", "L", VerdictState.WATCH),
             Verdict("of a plug-in", "P", VerdictState.ALARM)]  # fmt: skip
    assert [v.title for v in of_question(given, Question.OVERFITTING)] == ["O", "L"]
    assert [v.title for v in of_question(given, Question.SAMPLES)] == ["L"]


def test_a_number_with_a_point_does_not_end_a_sentence():
    assert first_sentences("It stands at 1.5 now. Then more is said of it.", 22) == "It stands at 1.5 now."


def test_one_sentence_is_kept_however_long():
    assert first_sentences("x" * 500 + ". Y.", 10) == "x" * 500 + "."
