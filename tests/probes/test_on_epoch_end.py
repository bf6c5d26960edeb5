"""Epoch ends: counted where their length is known, told where it is not."""

import pytest
import torch
import torch.nn.functional as F
from scheduled_training import trained
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainvitals as tv


def test_a_loader_or_a_number_counts_the_steps():
    loader = DataLoader(TensorDataset(torch.zeros(10, 1)), batch_size=4)
    assert tv.on_epoch_end(loader) == tv.on_epoch_end(3) == tv.every(3)


@pytest.mark.parametrize("wrong", [0, 2.5, "abc"[:0], object()])
def test_what_has_no_length_is_refused(wrong):
    with pytest.raises(ValueError, match="in on_epoch_end; give the loader"):
        tv.on_epoch_end(wrong)


def test_what_is_told_is_measured_then_and_what_was_measured_at_that_step_is_not_again(tmp_path):
    def logged(run):
        if run.step in (10, 25):
            run.epoch_end()
            run.epoch_end()

    every = {"loss.train": 5, "weights.norm": tv.every(20) | tv.on_epoch_end(), "rank.effective": tv.on_epoch_end()}
    found = trained(tmp_path, 30, logged, probes=list(every), every=every)
    assert found["loss.train"] == [0, 5, 10, 15, 20, 25, 30]
    assert found["weights.norm.value"] == [0, 10, 20, 25]
    assert found["rank.effective"] == [10, 25]


def test_nothing_is_measured_twice_at_a_step(tmp_path):
    model, x, y = nn.Linear(4, 3), torch.randn(12, 4), torch.arange(12) % 3
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with tv.watch(model, optimizer, loss=F.cross_entropy, train=(x, y), store=tmp_path, probes=["loss.train"],
                  every=1, budget=None) as run:  # fmt: skip
        optimizer.step()
        run.epoch_end()
    run.epoch_end()  # after the end: nothing
    with tv.open_run(run.id, store=tmp_path) as read:
        assert read.series("loss.train")["step"].tolist() == [0, 1]
