"""Passes over the data against a loop that counts what it sees."""

import pytest
import torch
from fake_snapshot import FakeSnapshot
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainvitals as tv
from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.data_passes import DataPasses


def test_a_loop_with_accumulation_has_seen_what_is_counted(tmp_path):
    x = torch.randn(24, 3)
    loader = DataLoader(TensorDataset(x, x), batch_size=4, shuffle=True)
    model = nn.Linear(3, 3)
    optimizer, seen = torch.optim.SGD(model.parameters(), 0.1), []
    options = {"data.passes": {"samples_per_step": 8, "num_unique": 24}}
    with tv.watch(
        model, optimizer, loss=nn.functional.mse_loss, train=loader, store=tmp_path, probes=options, every=1
    ):
        for _ in range(2):
            for i, (inputs, targets) in enumerate(loader):
                nn.functional.mse_loss(model(inputs), targets).backward()
                seen.append(len(inputs))
                if i % 2:  # two batches a step
                    optimizer.step()
                    optimizer.zero_grad()
    with tv.open_run("latest", store=tmp_path) as run:
        values = run.series("data.passes")["value"].tolist()
    assert values == pytest.approx([0.0, *(sum(seen[: 2 * (i + 1)]) / 24 for i in range(6))])


@pytest.mark.parametrize("options", [{}, {"samples_per_step": 8}, {"num_unique": 24}], ids=str)
def test_what_is_not_given_is_not_guessed(options):
    with pytest.raises(Missing, match="is not known; write"):
        DataPasses(**options).measure(FakeSnapshot(step=3))


@pytest.mark.parametrize("options", [{"samples_per_step": 0}, {"num_unique": True}, {"num_unique": -3}], ids=str)
def test_numbers_that_are_none_are_refused(options):
    with pytest.raises(ValueError, match=r"options of 'data\.passes'"):
        DataPasses(**options)
