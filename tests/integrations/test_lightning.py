"""The callback in real Trainers: the run it leaves, and the training that it leaves alone."""

from __future__ import annotations

import warnings

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainvitals as tv
from trainvitals.integrations.lightning import SWITCH, TrainVitalsCallback, callbacks_from_environment

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*:DeprecationWarning")


class Digits(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))
        self.loss_fn = nn.CrossEntropyLoss()
        self.losses = []

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, _):
        loss = self.loss_fn(self(batch[0]), batch[1])
        self.losses.append(float(loss))
        self.log("running_loss", loss)
        return loss

    def validation_step(self, batch, _):
        self.log("val/loss", self.loss_fn(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)


def loader(shuffle):
    x = torch.randn(60, 8, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(x, torch.arange(60) % 3), batch_size=10, shuffle=shuffle)


def train(*callbacks, module=None, **options):
    seed_everything(0, verbose=False)
    module = module or Digits()
    trainer = Trainer(
        max_epochs=3, callbacks=list(callbacks), logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu", log_every_n_steps=2, **options,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few workers, an own logger's absence
        trainer.fit(module, loader(shuffle=True), loader(shuffle=False))
    return module


def test_a_trainer_leaves_a_run_with_probes_and_logged_metrics(tmp_path):
    callback = TrainVitalsCallback(store=tmp_path, every=3, name="digits")
    train(callback)
    with tv.open_run("digits", store=tmp_path) as run:
        assert run.status == "finished"
        assert run.last_step == 18
        assert run.series("loss.train")["step"].tolist() == [0, 3, 6, 9, 12, 15, 18]
        assert len(run.series("loss.heldout")) == 7  # drawn from the validation loader
        assert run.series("running_loss")["step"].tolist()[0] == 2
        assert len(run.series("val/loss")) >= 3


def test_training_is_bit_for_bit_what_it_is_without(tmp_path):
    alone = train()
    watched = train(TrainVitalsCallback(store=tmp_path, every=1, probes="full", budget=None))
    assert watched.losses == alone.losses
    for a, b in zip(watched.state_dict().values(), alone.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_accumulated_batches_are_one_step(tmp_path):
    train(TrainVitalsCallback(store=tmp_path, every=1, name="digits"), accumulate_grad_batches=2)
    assert tv.open_run("digits", store=tmp_path).last_step == 9


def test_an_error_in_training_passes_through_and_marks_the_run(tmp_path):
    class Broken(Digits):
        def training_step(self, batch, index):
            if index == 4:
                raise RuntimeError("out of coffee")
            return super().training_step(batch, index)

    with pytest.raises(RuntimeError, match="out of coffee"):
        train(TrainVitalsCallback(store=tmp_path, every=1, name="digits"), module=Broken())
    run = tv.open_run("digits", store=tmp_path)
    assert run.status == "crashed"
    assert "out of coffee" in run.message


def test_a_module_without_a_loss_is_told_what_to_pass(tmp_path):
    class NoLoss(Digits):
        def __init__(self):
            super().__init__()
            self.loss_fn = None

        def training_step(self, batch, _):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        validation_step = None

    with pytest.raises(ValueError, match="pass loss="):
        train(TrainVitalsCallback(store=tmp_path), module=NoLoss())


def test_the_environment_switches_it_on(tmp_path, monkeypatch):
    assert callbacks_from_environment() == []
    monkeypatch.setenv(SWITCH, "1")
    monkeypatch.chdir(tmp_path)
    train()  # by the entry point
    assert [run.name for run in tv.list_runs("runs/")] == ["Digits"]


def test_the_entry_point_leads_to_it():
    from importlib.metadata import entry_points

    (found,) = [e for e in entry_points(group="lightning.pytorch.callbacks_factory") if e.name == "trainvitals"]
    assert found.load() is callbacks_from_environment


def test_only_the_first_process_watches(tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "is_global_zero", property(lambda self: False))
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    train(TrainVitalsCallback(store=tmp_path))
    assert tv.list_runs(tmp_path) == []
