"""Verdicts that reach the training loop: by a callback in its own thread, by alerts in another."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trainvitals as tv
from trainvitals.alerts import Alert, lookout
from trainvitals.schema import VerdictState


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(lookout.Lookout.__init__, "__kwdefaults__",
                        {**lookout.Lookout.__init__.__kwdefaults__, "seconds_between": 0.05})  # fmt: skip


def diverge(run, optimizer, model, x, y, seconds=20.0):
    """Train with a step far too large until the callback has its say."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        if torch.isfinite(loss):
            loss.backward()
        optimizer.step()
        time.sleep(0.005)


def make():
    torch.manual_seed(0)
    x, y = torch.randn(32, 6), torch.randn(32, 1)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1))
    return model, torch.optim.SGD(model.parameters(), 40.0), x, y


@dataclass(frozen=True)
class Told(Alert):
    names: list = field(default_factory=list)

    def send(self, verdict, run_name):
        self.names.append((run_name, verdict.condition, threading.current_thread().name))


class EnoughError(Exception):
    pass


def test_what_the_callback_raises_ends_the_training_from_its_own_thread(tmp_path, impatient):
    model, optimizer, x, y = make()
    heard, told = [], Told()

    def stop(verdict):
        heard.append((verdict.condition, str(verdict.state), threading.current_thread() is threading.main_thread()))
        if verdict.state == VerdictState.ALARM:
            raise EnoughError

    with pytest.raises(EnoughError), tv.watch(
        model, optimizer, loss=F.mse_loss, train=(x, y), store=tmp_path, name="diverges", probes=["loss"], every=1,
        on_verdict=stop, alerts=[told],
    ) as run:  # fmt: skip
        diverge(run, optimizer, model, x, y)
    assert heard[-1][1:] == ("alarm", True)
    assert ("diverges", heard[-1][0], "trainvitals-lookout") in told.names
    assert tv.open_run(run.path).status == "crashed"


def test_the_last_verdicts_come_with_the_end(tmp_path):
    model, optimizer, x, y = make()
    heard = []
    with tv.watch(
        model, optimizer, loss=F.mse_loss, train=(x, y), store=tmp_path, probes=["loss"], every=1,
        on_verdict=heard.append,
    ) as run:  # fmt: skip
        diverge(run, optimizer, model, x, y, seconds=0.5)
        assert heard == []  # five seconds have not gone by
    assert {v.condition for v in heard if v.state == "alarm"} == {
        v.condition for v in tv.open_run(run.path).verdicts() if v.state == "alarm"
    }
    assert heard


def test_without_either_there_is_no_thread(tmp_path):
    model, optimizer, x, y = make()
    with tv.watch(model, optimizer, loss=F.mse_loss, train=(x, y), store=tmp_path, probes=["loss"]):
        assert not [t for t in threading.enumerate() if t.name == "trainvitals-lookout"]
