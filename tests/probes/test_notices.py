"""What is odd about what a watch is given is said once, in words, and training goes on."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainvitals as tv
from trainvitals.probes.notices import foreign_optimizer, other_device
from trainvitals.probes.probe_batch import ProbeBatch

META = torch.device("meta")
X, Y = torch.randn(12, 4), torch.arange(12) % 3


def watch(model, optimizer, folder, train=(X, Y)):
    return tv.watch(model, optimizer, loss=F.cross_entropy, train=train, store=folder, probes=["loss.train"], every=1)


def test_an_optimiser_of_another_model_is_said_once_and_watched(tmp_path):
    model = nn.Linear(4, 3)
    optimizer = torch.optim.Adam(nn.Linear(4, 3).parameters())
    with pytest.warns(RuntimeWarning, match=r"got Adam with 2 tensors, none of them the model's.*make it") as caught:
        with watch(model, optimizer, tmp_path) as run:
            optimizer.step()
    assert len(caught) == 1
    with tv.open_run(run.path) as read:
        assert read.series("loss.train")["step"].tolist() == [0, 1]
        assert read.events()["message"].str.contains("none of them the model's").sum() == 1


def test_an_optimiser_of_a_part_of_the_model_and_of_more_is_no_surprise():
    model, loss = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3)), nn.PReLU()
    assert foreign_optimizer(model, torch.optim.SGD([model[1].bias, *loss.parameters()], 0.1)) is None
    assert foreign_optimizer(model, torch.optim.SGD(loss.parameters(), 0.1)) is not None
    assert foreign_optimizer(nn.DataParallel(model), torch.optim.SGD(model.parameters(), 0.1)) is None


def test_batches_on_another_device_are_named_and_loaders_are_not():
    sources = {"train": (X, Y), "heldout": {"inputs": X.to(META), "labels": Y}, "late": [(X, Y.to(META))]}
    found = other_device(sources, torch.device("cpu"), "trainvitals.watch")
    assert "on cpu, where the model is, got heldout on meta and late on meta in trainvitals.watch" in found
    assert other_device({"train": DataLoader(TensorDataset(X, Y))}, META, "trainvitals.watch") is None


def test_a_batch_on_another_device_is_moved_and_said_once(tmp_path, monkeypatch):
    """There is one device with numbers here: moving from `meta` is made to give them."""
    monkeypatch.setattr(ProbeBatch, "on", lambda self, device: ProbeBatch(((X, Y),), (len(X),)))
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.warns(RuntimeWarning, match="got train on meta in trainvitals.watch; they are copied there") as caught:
        run = watch(model, optimizer, tmp_path, train=(X.to(META), Y.to(META)))
    for _ in range(2):
        F.cross_entropy(model(X), Y).backward()
        optimizer.step()
    run.close()
    assert len(caught) == 1
    with tv.open_run(run.path) as read:
        assert len(read.series("loss.train")) == 3
        assert (read.events()["kind"] == "warning").sum() == 1


def test_measuring_says_it_too(monkeypatch):
    monkeypatch.setattr(ProbeBatch, "on", lambda self, device: ProbeBatch(((X, Y),), (len(X),)))
    with pytest.warns(RuntimeWarning, match="got train on meta in trainvitals.measure"):
        tv.measure(nn.Linear(4, 3), loss=F.cross_entropy, batch=(X.to(META), Y.to(META)), what=["loss.train"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_batch_of_the_host_is_moved_to_the_gpu(tmp_path):
    model = nn.Linear(4, 3).cuda()
    with pytest.warns(RuntimeWarning, match="on cuda:0, where the model is, got train on cpu"):
        with watch(model, torch.optim.SGD(model.parameters(), 0.1), tmp_path):
            pass
