"""Do the gradients agree? Alignment of the samples' gradients, noise, and of one step with the next."""

from trainvitals.schema import Question
from trainvitals.views import facts, leads
from trainvitals.views.page import show_question

show_question(Question.GRADIENTS, facts.gradients, leads.gradients)
