"""Consequences: what can follow, told apart by when it began; grouped behind their cause and never hidden."""

from dataclasses import replace

import pytest

from trainvitals.schema import Evidence, Verdict, VerdictState
from trainvitals.verdicts.condition import Condition, Judgement, conditions
from trainvitals.verdicts.consequences import covered, linked, root
from trainvitals.verdicts.engine import judge
from trainvitals.verdicts.sign import LOSS_LOST, SYMPTOMS, WEIGHTS_GREW

ALARM, WATCH, HEALTHY = VerdictState.ALARM, VerdictState.WATCH, VerdictState.HEALTHY
BY_ID = {condition.id: condition for condition in conditions()}


def verdict(condition, since, state=ALARM):
    return Verdict(condition, BY_ID[condition].title, state, since)


def links(*verdicts, last_step=1000):
    return {v.condition: (v.follows, v.relation) for v in linked(verdicts, BY_ID, last_step)}


@pytest.mark.parametrize(("since", "words"), [
    (180, "Began 5 steps before “Step too large”, and probably is its first sign."),
    (185, "Began together with “Step too large”, and probably belongs to it."),
    (186, "Began 1 step after “Step too large”, and probably follows from it."),
])  # fmt: skip
def test_the_relation_says_how_far_apart_they_began(since, words):
    assert links(verdict("step_too_large", 185), verdict("dead_units", since))["dead_units"] == ("step_too_large",
                                                                                                 words)


def test_what_began_long_before_stands_alone_and_what_began_long_after_may_follow():
    before = links(verdict("step_too_large", 185), verdict("dead_units", 100))
    assert before == {"step_too_large": ("", ""), "dead_units": ("", "")}
    after = links(verdict("step_too_large", 185), verdict("dead_units", 700))
    assert after["dead_units"][1] == "Began 515 steps after “Step too large”, and may follow from it."


def test_without_a_mechanism_an_order_in_time_says_nothing():
    assert links(verdict("class_neglect", 100), verdict("dead_units", 101))["dead_units"] == ("", "")


def test_of_two_that_can_bring_each_other_about_the_earlier_is_the_cause():
    first, second = verdict("attention_logit_growth", 28), verdict("step_too_large", 30)
    assert links(first, second)["step_too_large"][0] == "attention_logit_growth"
    assert links(first, second)["attention_logit_growth"][0] == ""
    turned = links(verdict("attention_logit_growth", 31), second)
    assert [turned[c][0] for c in ("attention_logit_growth", "step_too_large")] == ["step_too_large", ""]
    together = links(verdict("attention_logit_growth", 30), second)
    assert sorted(follows for follows, _ in together.values()) == ["", "step_too_large"]


def test_what_is_healthy_causes_nothing_and_follows_from_nothing():
    found = links(verdict("step_too_large", None, HEALTHY), verdict("dead_units", 5))
    assert found["dead_units"] == ("", "")


def test_a_chain_has_one_root():
    chain = [verdict("step_too_large", 10), verdict("dead_units", 12), verdict("representation_collapse", 14)]
    found = linked(chain, BY_ID, 100)
    by_id = {v.condition: v for v in found}
    assert {root(v, by_id).condition for v in found} == {"step_too_large"}


def test_every_condition_that_is_followed_exists():
    assert {id for condition in conditions() for id in condition.follows} <= set(BY_ID)


def made(name, state, began, order=50, after=()):
    class Made(Condition):
        id = name
        title, says, reads, source, advice = name, "It says.", (), "a test", ()
        precedence, follows = order, after

        def judge(self, run):
            return Judgement(state, "", began, began, 0.9)

    return Made()


class Facts:
    last_step = 1000


def test_the_worst_comes_first_then_the_earliest_and_consequences_stand_behind_their_cause():
    asked = [
        made("late", ALARM, 500), made("early", ALARM, 300), made("calm", HEALTHY, None),
        made("cause", WATCH, 100), made("effect", ALARM, 120, after=("cause",)), made("slight", WATCH, 50),
    ]  # fmt: skip
    found = judge(Facts(), asked)
    assert [v.condition for v in found] == ["cause", "effect", "early", "late", "slight", "calm"]
    assert [v.state for v in found] == [WATCH, ALARM, ALARM, ALARM, WATCH, HEALTHY]


def test_what_is_told_of_by_a_finding_is_not_called_not_found():
    thrown = Evidence("weights.norm.value", 90, 1414.0, "above", 10.0, "the bank", symptom=WEIGHTS_GREW)
    cause = replace(verdict("step_too_large", 80), evidence=(thrown,))
    other = verdict("weight_norm_growth", None, HEALTHY)
    quiet = verdict("overfitting", None, HEALTHY)
    by = {v.condition: v.covered_by for v in covered([cause, other, quiet], BY_ID)}
    assert by == {"step_too_large": "", "weight_norm_growth": "step_too_large", "overfitting": ""}
    over = replace(cause, evidence=(replace(thrown, holds=False),))
    assert covered([over, other], BY_ID)[1].covered_by == ""
    assert covered([replace(cause, state=HEALTHY), other], BY_ID)[1].covered_by == ""


def test_the_cause_is_named_where_two_findings_tell_of_one_symptom():
    lost = Evidence("loss.train", 90, 0.6, "above", 0.5, "the bank", symptom=LOSS_LOST)
    dead, large = (replace(verdict(c, 80), evidence=(lost,)) for c in ("dead_units", "step_too_large"))
    assert covered([dead, large, verdict("plasticity_loss", None, HEALTHY)], BY_ID)[2].covered_by == "step_too_large"


def test_symptoms_are_of_those_that_there_are():
    assert {symptom for condition in BY_ID.values() for symptom in condition.symptoms} <= set(SYMPTOMS)
    assert all(name in condition.reads for condition in BY_ID.values() for name in condition.rests_on)
