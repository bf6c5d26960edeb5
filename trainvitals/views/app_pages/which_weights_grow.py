"""Which weights grow? Norm growth by layer, the layers out of proportion, distance, update ratio."""

from trainvitals.schema import Question
from trainvitals.views import facts, leads
from trainvitals.views.page import show_question

show_question(Question.WEIGHTS, facts.weights, leads.weights)
