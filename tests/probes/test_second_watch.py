"""Two watches on one model: the first gives way where it would only measure twice, and that is said once."""

from __future__ import annotations

import gc
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trainvitals as tv
from trainvitals.schema import Status


def make():
    torch.manual_seed(0)
    x, y = torch.randn(12, 4), torch.arange(12) % 3
    model = nn.Linear(4, 3)
    return model, torch.optim.SGD(model.parameters(), 0.1), x, y


def watch(model, optimizer, x, y, folder, name):
    return tv.watch(model, optimizer, loss=F.cross_entropy, train=(x, y), store=folder, name=name,
                    probes=["loss.train"], every=1)  # fmt: skip


def step(model, optimizer, x, y):
    optimizer.zero_grad()
    F.cross_entropy(model(x), y).backward()
    optimizer.step()


def test_a_second_watch_of_the_same_optimiser_closes_the_first(tmp_path):
    model, optimizer, x, y = make()
    first = watch(model, optimizer, x, y, tmp_path, "first")
    step(model, optimizer, x, y)
    with pytest.warns(RuntimeWarning, match="expected one watch of a model and its optimiser") as caught:
        second = watch(model, optimizer, x, y, tmp_path, "second")
    assert len(caught) == 1
    step(model, optimizer, x, y)
    second.close()
    assert not first.is_open
    assert (first.step, second.step) == (1, 1)
    with tv.open_run(first.path) as run:
        assert run.status is Status.FINISHED
        assert f"run {second.id} watches this model from here on" in run.message
    with tv.open_run(second.path) as run:
        assert run.events()["message"].str.contains("the first, run first").sum() == 1
    assert len(optimizer._optimizer_step_post_hooks) == 0


def test_a_second_watch_with_another_optimiser_leaves_the_first_alone(tmp_path):
    model, optimizer, x, y = make()
    other = torch.optim.SGD([model.bias], 0.1)
    first = watch(model, optimizer, x, y, tmp_path, "first")
    with pytest.warns(RuntimeWarning, match="with another optimiser in trainvitals.watch; run first"):
        second = watch(model, other, x, y, tmp_path, "second")
    for each in (optimizer, other, optimizer):
        step(model, each, x, y)
    assert (first.step, second.step) == (2, 1)
    first.close(), second.close()


def test_one_after_the_other_is_nothing_to_speak_of(tmp_path):
    model, optimizer, x, y = make()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("first", "second"):
            with watch(model, optimizer, x, y, tmp_path, name):
                step(model, optimizer, x, y)
        with watch(*make(), tmp_path, "of another model"), watch(model, optimizer, x, y, tmp_path, "third"):
            step(model, optimizer, x, y)


def test_what_is_noted_keeps_no_model_alive(tmp_path):
    from trainvitals.probes.second_watch import _WATCHES

    gc.collect()
    before = len(_WATCHES)
    with watch(*make(), tmp_path, "short"):
        assert len(_WATCHES) == before + 1
    gc.collect()
    assert len(_WATCHES) == before
