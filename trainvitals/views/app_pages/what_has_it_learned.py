"""What has it learned? The four properties of neural collapse together, then one by one."""

from trainvitals.schema import Question
from trainvitals.views import facts, leads
from trainvitals.views.page import show_question

show_question(Question.REPRESENTATION, facts.representation, leads.representation)
