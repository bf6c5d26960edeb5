"""Is it stable? Spikes of the loss, samples without a gradient, what is no number any more."""

from trainvitals.schema import Question
from trainvitals.views import facts, leads
from trainvitals.views.page import show_question

show_question(Question.STABILITY, facts.stability, leads.stability)
