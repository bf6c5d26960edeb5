"""The tracker in a real Accelerator."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainvitals as tv
from trainvitals.integrations.accelerate import TrainVitalsTracker


def test_what_the_accelerator_logs_stands_beside_the_probes(tmp_path):
    torch.manual_seed(0)
    x, y = torch.randn(40, 4), torch.arange(40) % 2
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    run = tv.watch(model, optimizer, loss=F.cross_entropy, train=(x, y), store=tmp_path, name="linear", every=2)
    accelerator = Accelerator(cpu=True, log_with=TrainVitalsTracker(run))
    accelerator.init_trackers("linear", config={"lr": 0.1, "token": "hf_abcdefghijklmnopqrstuvwxyz012345"})
    model, optimizer, loader = accelerator.prepare(model, optimizer, DataLoader(TensorDataset(x, y), batch_size=10))
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs), targets)
        accelerator.backward(loss)
        optimizer.step()
        accelerator.log({"train_loss": loss, "phase": "warm-up"})
    accelerator.end_training()
    with tv.open_run("linear", store=tmp_path) as read:
        assert read.status == "finished"
        assert read.series("train_loss")["step"].tolist() == [1, 2, 3, 4]
        assert read.series("loss.train")["step"].tolist() == [0, 2, 4]
