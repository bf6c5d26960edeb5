"""The trainer's end: what is left when the process cannot start, dies, or is asked to end."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trainvitals.diagnostics.registry import select
from trainvitals.probes import side_link
from trainvitals.probes.side import Side
from trainvitals.probes.side_link import SideLink, device_for
from trainvitals.probes.subject import make_subject

CPU, GPU = torch.device("cpu"), torch.device("cuda:1")


def make():
    torch.manual_seed(0)
    x, y = torch.randn(12, 4), torch.arange(12) % 3
    return make_subject(nn.Linear(4, 3), loss=F.cross_entropy, forward=None, train=(x, y), call="a test")


def wait_for(condition, seconds: float = 120.0) -> None:
    stop = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < stop, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("given", "trains_on", "num_gpus", "expected"),
    [
        (None, CPU, 4, "cpu"), (None, GPU, 1, "cpu"), (None, GPU, 2, "cuda:0"), (None, GPU, 4, "cuda:2"),
        ("cuda:3", GPU, 4, "cuda:3"),
    ],
)  # fmt: skip
def test_it_takes_another_gpu_or_the_cpu(given, trains_on, num_gpus, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    assert device_for(Side(device=given), trains_on) == expected


@pytest.mark.parametrize("reason", ["no such program", "a frozen program"])
def test_a_process_that_cannot_start_leaves_nothing_open(reason, monkeypatch):
    if reason == "no such program":
        monkeypatch.setattr(side_link, "get_executable", lambda: "/nowhere/python")
    else:
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    with pytest.raises((OSError, RuntimeError), match=r"/nowhere/python|without a Python of its own"):
        SideLink(Side(), make(), select(["loss.train"]), lambda answer: None)
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before


@pytest.mark.slow
def test_answers_come_in_order_and_nothing_is_left_in_the_end():
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    answers, diagnostics = [], select(["loss.train"])
    link = SideLink(Side(num_waiting=3, niceness=0), make(), diagnostics, answers.append)
    for step in range(3):
        assert link.has_room
        link.send(diagnostics, step)
    assert not link.has_room
    wait_for(lambda: link.has_room)
    assert link.close(120.0) == 0
    assert [answer.step for answer in answers] == [0, 1, 2]
    assert link.failure is None
    assert link._process.returncode == 0
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before


@pytest.mark.slow
def test_a_process_that_cannot_go_on_says_why():
    diagnostics = select(["loss.train"])
    link = SideLink(Side(device="no such device", niceness=0), make(), diagnostics, lambda answer: None)
    wait_for(lambda: link.failure is not None)
    assert "no such device" in link.failure
    assert link.close(1.0) == 0
