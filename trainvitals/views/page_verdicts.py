"""What the verdicts say to the question of a page: found, healthy, or not measured. In full they stand on the first."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import streamlit as st

from trainvitals.schema import Question, Verdict, VerdictState
from trainvitals.views.run_view import RunView
from trainvitals.views.words import plain, steps

QUESTIONS: Mapping[str, tuple[Question, ...]] = {  # a test compares them with the conditions that there are
    "attention_logit_growth": (Question.STABILITY,),
    "catastrophic_overfitting": (Question.STABILITY, Question.OVERFITTING),
    "class_neglect": (Question.OVERFITTING,),
    "dead_units": (Question.REPRESENTATION,),
    "edge_of_stability": (Question.SHARPNESS, Question.STABILITY),
    "gradient_conflict": (Question.GRADIENTS,),
    "gradient_starvation": (Question.REPRESENTATION,),
    "grokking_possible": (Question.OVERFITTING,),
    "label_noise": (Question.OVERFITTING, Question.SAMPLES),
    "loss_spikes": (Question.STABILITY,),
    "neural_collapse": (Question.REPRESENTATION,),
    "non_finite": (Question.STABILITY,),
    "overfitting": (Question.OVERFITTING,),
    "plasticity_loss": (Question.REPRESENTATION, Question.WEIGHTS),
    "representation_collapse": (Question.REPRESENTATION,),
    "softmax_collapse": (Question.STABILITY,),
    "step_too_large": (Question.STABILITY, Question.SHARPNESS),
    "step_too_small": (Question.STABILITY, Question.WEIGHTS),
    "underfitting": (Question.OVERFITTING,),
    "weight_norm_growth": (Question.WEIGHTS,),
}
COLOURS: Mapping[VerdictState, Literal["red", "orange"]] = {VerdictState.ALARM: "red", VerdictState.WATCH: "orange"}
SUMMARY_LENGTH = 240  # characters: the evidence in full is on the first page


def of_question(verdicts: list[Verdict], question: str) -> list[Verdict]:
    """Return the verdicts that answer a page's question, the worst first."""
    return [v for v in verdicts if question in QUESTIONS.get(v.condition, ())]


def verdict_lines(view: RunView, question: str) -> None:
    """Show a line for each condition that is found, and one for those that are not."""
    found = of_question(view.verdicts, question)
    for verdict in found:
        if verdict.state in COLOURS:
            _line(verdict)
    rest = []
    if healthy := [v.title for v in found if v.state == VerdictState.HEALTHY and not v.covered_by]:
        rest.append(f":green[✓] Not found: {plain(', '.join(healthy), 400)}")
    if unknown := [v.title for v in found if v.state == VerdictState.UNKNOWN]:
        rest.append(f"not measured well enough to tell: {plain(', '.join(unknown), 400)}")
    if rest:
        st.caption(" · ".join(rest))


def _line(verdict: Verdict) -> None:
    colour, word = ("blue", "to know") if verdict.is_informational else (COLOURS[verdict.state], str(verdict.state))
    since = "" if verdict.since is None else f" since step {plain(steps(verdict.since))}"
    said = plain(first_sentences(verdict.summary), 600)
    st.markdown(f":{colour}-badge[{word}] **{plain(verdict.title)}**{since}. {said}")


def first_sentences(text: str, limit: int = SUMMARY_LENGTH) -> str:
    """Return as many whole sentences as fit, at least one.

    >>> first_sentences("It has turned. At step 9 it stood at 1.5. More is said elsewhere.", 45)
    'It has turned. At step 9 it stood at 1.5.'
    """
    sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z])", text)
    kept = sentences[0]
    for sentence in sentences[1:]:
        if len(kept) + 1 + len(sentence) > limit:
            break
        kept += f" {sentence}"
    return kept
