"""The probes of all ranks as one, and who works on which part."""

import pytest
import torch
from cases import CASES
from torch import nn

from trainvitals.probes.probe_batch import ProbeBatch
from trainvitals.probes.rank_probes import dealt, parts_for, same_sets, together
from trainvitals.probes.subject import make_subject


def batch(start, stop):
    x = torch.arange(start, stop).float()[:, None]
    return ProbeBatch(((x, x[:, 0].long()),), (stop - start,))


def test_the_parts_of_all_ranks_are_one_batch_in_their_order():
    ((inputs, targets),) = together([batch(0, 3), batch(3, 8)])
    assert inputs[:, 0].tolist() == targets.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_the_same_batch_from_every_rank_counts_once():
    ((inputs, _),) = together([batch(0, 3)] * 4)
    assert inputs[:, 0].tolist() == [0, 1, 2]


def test_batches_that_cannot_be_joined_stay_apart():
    wide = ProbeBatch(((torch.zeros(2, 5), torch.zeros(2).long()),), (2,))
    assert [len(chunk[0]) for chunk in together([batch(0, 3), wide])] == [3, 2]


@pytest.mark.parametrize("sizes", [[7], [4, 4, 4, 4], [9, 1, 1, 1], [1, 1, 1, 9], [5, 5, 5], [1] * 20])
@pytest.mark.parametrize("num_ranks", [2, 3, 4, 7])
def test_every_chunk_is_one_ranks_and_neighbours_stay_together(sizes, num_ranks):
    parts = dealt(sizes, num_ranks)
    assert len(parts) == num_ranks
    assert [chunk for part in parts for chunk in part] == list(range(len(sizes)))
    loads = [sum(sizes[chunk] for chunk in part) for part in parts]
    assert max(loads) <= sum(sizes) / num_ranks + max(sizes)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_probe_in_parts_has_its_samples_and_shares(case):
    built = case.build()
    subject = make_subject(built.model, loss=built.loss, forward=None, train=built.batches, call="test")
    whole, parts = parts_for(subject, 2)
    assert sum(whole.sizes) == subject.train.num_samples
    assert sum(whole.shares) == pytest.approx(1.0)
    assert sum(len(part) for part in parts) == len(whole.chunks) > 1


def test_nothing_is_cut_where_samples_may_depend_on_each_other():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    given = {"loss": nn.functional.mse_loss, "forward": None, "train": (torch.randn(8, 2), torch.randn(8, 2))}
    assert parts_for(make_subject(model, **given, mode="train", call="test"), 2) is None
    assert parts_for(make_subject(model, **given, call="test"), 2) is not None


def test_heldout_sets_keep_their_names():
    assert same_sets({"heldout": [1]}) == [1]
    assert same_sets({"clean": [1], "shifted": [2]}) == {"clean": [1], "shifted": [2]}
    assert same_sets(None) is None
