"""The learning rate as schedulers set it, by group."""

import pytest
import torch
from fake_snapshot import FakeSnapshot

import trainvitals as tv
from trainvitals.diagnostics.base import Missing, OptimizerView, ParameterGroup
from trainvitals.diagnostics.learning_rate import LearningRate


def view(*rates):
    groups = tuple(ParameterGroup({} if rate is None else {"lr": rate}, ()) for rate in rates)
    return FakeSnapshot(optimizer=OptimizerView("SGD", groups, {}))


def test_each_group_has_its_rate_tensors_too():
    reading = LearningRate().measure(view(0.1, torch.tensor(0.5), None))
    assert reading.value.tolist() == [0.1, 0.5]
    assert reading.keys == ("0", "1")


def test_no_rate_at_all_is_missing():
    with pytest.raises(Missing, match="no parameter group"):
        LearningRate().measure(view(None))


def test_a_watched_run_records_what_the_scheduler_sets(tmp_path):
    model, x = torch.nn.Linear(2, 1), torch.ones(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.4)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    loss = torch.nn.functional.mse_loss
    with tv.watch(model, optimizer, loss=loss, train=(x, torch.zeros(4, 1)), store=tmp_path,
                  probes=["learning_rate"], every=1) as run:  # fmt: skip
        for _ in range(4):
            optimizer.zero_grad()
            loss(model(x), torch.zeros(4, 1)).backward()
            optimizer.step()
            scheduler.step()
    assert tv.open_run(run.path).series("learning_rate")["value"].tolist() == [0.4, 0.4, 0.4, 0.2, 0.2]
