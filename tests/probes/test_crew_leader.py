"""The leader's side of an order: what is sent, what is added up, and what happens where a rank fails."""

import pytest
import torch

from trainvitals.diagnostics.crew import Task
from trainvitals.probes.crew_leader import CrewLeader
from trainvitals.probes.probe_batch import ProbeBatch

TASK = Task("product", ((1, 0.5),))
AT_STEP = [torch.tensor([1.0, 2.0])]


class ScriptedRanks:
    """Two ranks, of which the other finds tens, or fails."""

    number = 0

    def __init__(self):
        self.fails = False
        self.said, self.handed_on = [], []

    def told(self, value=None):
        self.said.append(value)
        return value

    def handed(self, tensor):
        self.handed_on.append(tensor.tolist())
        return tensor

    def counted(self, numbers):
        return [numbers[0], int(self.fails)]

    def gathered(self, value):
        return ["", "RuntimeError: ill"]

    def summed(self, tensor):
        return tensor + 10.0


@pytest.fixture
def crew():
    ranks = ScriptedRanks()
    leader = CrewLeader(ranks, ProbeBatch((0, 1), (1, 1)), [range(1), range(1, 2)])
    said = []
    leader.begin(AT_STEP, [], said.append)
    return leader, ranks, said


def ask(leader, values=AT_STEP, mine=lambda: [torch.ones(2)], theirs=lambda: [torch.full((2,), 5.0)]):
    return leader.together(TASK, values, torch.zeros(1, 2), mine, theirs)[0].tolist()


def test_what_the_ranks_find_is_added_up(crew):
    leader, ranks, _ = crew
    assert ask(leader) == [11.0, 11.0]
    assert [order.values for order in ranks.said] == [0]
    assert ranks.handed_on == [[[0.0, 0.0]]]


def test_other_weights_than_the_steps_are_sent_once(crew):
    leader, ranks, _ = crew
    other = [torch.tensor([3.0, 4.0])]
    for values in (other, other, [torch.tensor([1.0, 2.0])], [torch.tensor([5.0, 6.0])]):
        ask(leader, values)
    sent = [(order.values, order.brings_values) for order in ranks.said]
    assert sent == [(1, True), (1, False), (0, False), (2, True)]
    assert [found for found in ranks.handed_on if found != [[0.0, 0.0]]] == [[3.0, 4.0], [5.0, 6.0]]


def test_where_a_helper_fails_its_part_is_done_here_from_then_on(crew):
    leader, ranks, said = crew
    ranks.fails = True
    assert ask(leader) == ask(leader) == [6.0, 6.0]
    assert len(ranks.said) == 1
    assert len(said) == 1
    assert "RuntimeError: ill" in said[0]
    assert not leader.is_interrupted


def test_what_fails_here_is_raised_and_the_others_are_ready_for_the_next_order(crew):
    leader, _, said = crew

    def failing():
        raise ValueError("here")

    with pytest.raises(ValueError, match="here"):
        ask(leader, mine=failing)
    assert not leader.is_interrupted
    assert ask(leader) == [11.0, 11.0]
    assert said == []


def test_ctrl_c_in_the_middle_of_an_order_leaves_nothing_more_to_say(crew):
    leader, ranks, _ = crew

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(leader, mine=interrupted)
    assert leader.is_interrupted
    leader.end()
    assert len(ranks.said) == 1  # the order, and no farewell that nobody would understand
