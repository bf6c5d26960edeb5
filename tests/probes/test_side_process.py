"""The process beside training: the numbers are those of the trainer, and it goes when the trainer goes."""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest
import torch
import torch.nn.functional as F
from cases import CASES
from torch import nn
from torch.utils.checkpoint import checkpoint

from trainvitals.diagnostics.registry import registered, select
from trainvitals.probes.measure import take_readings
from trainvitals.probes.product_choice import products_of
from trainvitals.probes.side import offloaded
from trainvitals.probes.side_job import beginning_of, job_of
from trainvitals.probes.side_packing import packed, unpacked
from trainvitals.probes.side_process import Bench
from trainvitals.probes.subject import make_subject

CPU = torch.device("cpu")
UNLIKE = [case for case in CASES if case.name in ("uneven", "frozen")]  # several batches, a frozen layer


def arrived(value):
    body, tensors = packed(value)
    return unpacked(body, [t.detach().clone() for t in tensors])


def make(model: nn.Module, x, y, loss=F.cross_entropy):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.05, momentum=0.9)
    subject = make_subject(
        model, loss=loss, forward=None, train=(x, y), heldout=(x[::2], y[::2]), optimizer=optimizer, mode="eval",
        seed=0, call="a test",
    )  # fmt: skip
    subject.products = products_of(subject, "double backward", None, patience=0)
    subject.initial_parameters = subject.weights_at_start()
    return subject, optimizer


def classifier():
    torch.manual_seed(0)
    x, y = torch.randn(30, 4), torch.arange(30) % 3
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)), x, y


def assert_same_readings(found, expected):
    assert list(found) == list(expected)
    for name, reading in expected.items():
        assert found[name].missing == reading.missing, name
        assert found[name].keys == reading.keys, name
        for part in ("value", "error"):
            one, other = getattr(found[name], part), getattr(reading, part)
            assert (one is None) == (other is None), (name, part)
            if other is not None:
                np.testing.assert_array_equal(one, other, err_msg=f"{name}.{part}")  # bit for bit


def test_the_numbers_of_the_preset_default_are_those_of_the_trainer_bit_for_bit():
    model, x, y = classifier()
    subject, optimizer = make(model, x, y)
    here, there = ([d for d in select("default") if d.name in offloaded([d])] for _ in range(2))
    bench = Bench(arrived(beginning_of(subject, there)))
    for step in range(2):  # the second time with what diagnostics and products remember
        expected = take_readings(subject, here, step=step)
        answer = bench.measure(arrived(job_of(subject, there, step, 0.0)), CPU)
        assert_same_readings(answer.readings, expected)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert sum(reading.value is not None for reading in expected.values()) > 30
    assert answer.errors == []


@pytest.mark.slow
@pytest.mark.parametrize("case", UNLIKE, ids=lambda case: case.name)
def test_every_metric_is_that_of_the_trainer_bit_for_bit(case):
    built = case.build()
    subject, _ = make(built.model, *built.batch, built.loss)
    chosen = select([name for name, kind in registered().items() if kind.tier != "on request"])
    here = [d for d in chosen if d.name in offloaded([d])]
    there = copy.deepcopy(here)
    bench = Bench(arrived(beginning_of(subject, there)))
    expected = take_readings(subject, here, step=3)
    assert_same_readings(bench.measure(arrived(job_of(subject, there, 3, 0.0)), CPU).readings, expected)


class Odd(nn.Module):
    """Parts that are hard to send: generators, a checkpointed segment, a recurrent layer, parametrised weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.utils.parametrizations.spectral_norm(nn.Linear(4, 6))
        self.lstm = nn.LSTM(6, 6, batch_first=True)
        self.body = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.3), nn.ReLU())
        self.head = nn.Linear(6, 3)
        self.noise = torch.Generator().manual_seed(1), np.random.default_rng(0)

    def forward(self, x):
        hidden = self.lstm(torch.tanh(self.first(x)).unsqueeze(1))[0][:, -1]
        return self.head(checkpoint(self.body, hidden, use_reentrant=False))


class Weighted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor([1.0, 2.0, 3.0]))

    def forward(self, out, y):
        return F.cross_entropy(out, y, weight=self.weight)


def of_dict(model, batch):
    outputs = model(batch["x"])
    return outputs, F.cross_entropy(outputs, batch["labels"], reduction="none")


@pytest.mark.parametrize(
    "kind", ["train mode", "bf16", "forward", "loss module", pytest.param("compiled", marks=pytest.mark.slow)]
)
def test_models_that_are_hard_to_send_give_the_numbers_of_the_trainer_bit_for_bit(kind):
    model, x, y = classifier()
    model = model.bfloat16() if kind == "bf16" else Odd()
    if kind == "compiled":
        model.body = torch.compile(model.body, backend="eager")
    subject = make_subject(
        model, loss={"forward": None, "loss module": Weighted()}.get(kind, F.cross_entropy),
        forward=of_dict if kind == "forward" else None, train={"x": x, "labels": y} if kind == "forward" else (x, y),
        mode="train" if kind == "train mode" else "eval", call="a test",
    )  # fmt: skip
    subject.products = products_of(subject, "double backward", None, patience=0)
    here, there = (select(["hessian.top", "grad.norm", "oui", "grad.cosine", "weights.spectral"]) for _ in range(2))
    expected = take_readings(subject, here, step=5)
    bench = Bench(arrived(beginning_of(subject, there)))
    assert_same_readings(bench.measure(arrived(job_of(subject, there, 5, 0.0)), CPU).readings, expected)
    assert expected["hessian.top"].value is not None


def test_a_diagnostic_that_fails_there_is_told_and_the_others_go_on(monkeypatch):
    def fail(self, snapshot):
        raise RuntimeError("broken inside")

    model, x, y = classifier()
    subject, _ = make(model, x, y)
    there = select(["loss.train", "oui"])
    bench = Bench(arrived(beginning_of(subject, there)))
    monkeypatch.setattr(registered()["oui"], "measure", fail)
    answer = bench.measure(arrived(job_of(subject, there, 3, 0.0)), CPU)
    assert answer.errors == [("oui", "RuntimeError: broken inside")]
    assert "broken inside" in answer.readings["oui"].missing
    assert answer.readings["loss.train"].value > 0


def test_what_small_diagnostics_remember_comes_back_with_the_numbers():
    model, x, y = classifier()
    subject, _ = make(model, x, y)
    there = select(["overtraining"])
    bench = Bench(arrived(beginning_of(subject, there)))
    memory = bench.measure(arrived(job_of(subject, there, 0, 0.0)), CPU).memories["overtraining"]
    mine = select(["overtraining"])
    take_readings(subject, mine, step=0)
    assert vars(pickle.loads(memory)) == vars(mine[0]) != vars(select(["overtraining"])[0])


TRAINER = """
import os, signal, sys, time, torch, trainvitals as tv
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that run in the background inherit that it is ignored
model = torch.nn.Linear(4, 3)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
x, y = torch.randn(30, 4), torch.arange(30) % 3
run = tv.watch(model, optimizer, loss=torch.nn.functional.cross_entropy, train=(x, y), store=sys.argv[1],
               probes=["hessian.top"], every=1, where="side")
print(run._side._link.pid, flush=True)
while True:
    optimizer.zero_grad(); torch.nn.functional.cross_entropy(model(x), y).backward(); optimizer.step()
    time.sleep(0.01)
"""


def has_ended(pid: int, seconds: float) -> bool:
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill", "ctrl_c"])
def test_it_goes_when_the_trainer_goes_and_says_nothing(tmp_path, number):
    with subprocess.Popen(
        [sys.executable, "-c", TRAINER, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": os.getcwd()}, start_new_session=True,
    ) as trainer:  # fmt: skip
        helper = int(trainer.stdout.readline())
        time.sleep(2.0)
        # Ctrl-C in a terminal reaches the whole foreground group of the trainer
        os.killpg(trainer.pid, number) if number == signal.SIGINT else trainer.kill()
        try:
            assert has_ended(helper, 30.0)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(helper, signal.SIGKILL)
            watchdog = threading.Timer(60.0, trainer.kill)  # a trainer that stays would hold the test for ever
            watchdog.start()
        _, errors = trainer.communicate(timeout=60)
        watchdog.cancel()
    assert errors.count("Traceback") == (number == signal.SIGINT)  # the trainer's own
    assert "side_process" not in errors
