"""How sharp is it? λmax against its threshold, the top of the spectrum, its density, the trace."""

from trainvitals.schema import Question
from trainvitals.views import facts, leads
from trainvitals.views.page import show_question

show_question(Question.SHARPNESS, facts.sharpness, leads.sharpness)
