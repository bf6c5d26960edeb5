"""Is it overfitting? The two losses with the turn of the held-out one, the gap, OUI by layer."""

from trainvitals.schema import Question
from trainvitals.views import facts, leads
from trainvitals.views.page import show_question

show_question(Question.OVERFITTING, facts.overfitting, leads.overfitting)
