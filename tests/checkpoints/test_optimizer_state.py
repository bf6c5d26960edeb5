"""The optimiser of a checkpoint: its class by its hyperparameters, its state at the right parameters."""

from __future__ import annotations

import copy

import pytest
import torch
from checkpoints.saved import batch, build, loss

from trainvitals.checkpoints.optimizer_state import UnknownOptimizer, optimizer_of

MAKERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "plain SGD": lambda p: torch.optim.SGD(p, lr=0.1),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.8, 0.99)),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5),
}


def stepped(make) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    model = build()
    optimizer = make(model.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        loss(model(batch()[0]), batch()[1]).backward()
        optimizer.step()
    return model, optimizer


@pytest.mark.parametrize("name", MAKERS)
def test_the_next_step_of_the_restored_optimiser_is_that_of_the_saved_one(name):
    model, optimizer = stepped(MAKERS[name])
    twin = build()
    twin.load_state_dict(model.state_dict())
    restored = optimizer_of(twin, copy.deepcopy(optimizer.state_dict()))
    assert type(restored) is type(optimizer)
    for some, its in ((model, optimizer), (twin, restored)):
        some.zero_grad()
        loss(some(batch()[0]), batch()[1]).backward()
        its.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_adam_and_adamw_that_differ_by_nothing_saved_are_not_guessed():
    model, optimizer = stepped(MAKERS["Adam"])
    saved = optimizer.state_dict()
    del saved["param_groups"][0]["decoupled_weight_decay"]  # as older versions of torch save it
    with pytest.raises(UnknownOptimizer, match="Adam or AdamW"):
        optimizer_of(model, saved)
    assert type(optimizer_of(model, saved, lambda m: MAKERS["AdamW"](m.parameters()))) is torch.optim.AdamW
    saved["param_groups"][0]["weight_decay"] = 0
    assert type(optimizer_of(model, saved)) is torch.optim.Adam


def test_groups_without_names_and_other_shapes_are_not_guessed():
    model, optimizer = stepped(lambda p: torch.optim.Adam([{"params": [q]} for q in p], lr=0.1))
    with pytest.raises(UnknownOptimizer, match="which parameters are in which of its groups"):
        optimizer_of(model, optimizer.state_dict())
    model, optimizer = stepped(lambda p: torch.optim.Adam(list(p)[::-1], lr=0.1))
    with pytest.raises(UnknownOptimizer, match="the order of its parameters"):
        optimizer_of(model, optimizer.state_dict())
    with pytest.raises(UnknownOptimizer, match="hyperparameters"):
        optimizer_of(model, {"state": {}, "param_groups": [{"lr": 1.0, "params": [0]}]})


def test_groups_with_names_are_put_together_by_them():
    model = build()
    named = list(model.named_parameters())
    optimizer = torch.optim.AdamW([{"params": named[::2]}, {"params": named[1::2], "weight_decay": 0.0}], lr=0.1)
    loss(model(batch()[0]), batch()[1]).backward()
    optimizer.step()
    restored = optimizer_of(model, optimizer.state_dict())
    assert [len(group["params"]) for group in restored.param_groups] == [3, 3]
    for parameter in model.parameters():
        assert torch.equal(restored.state[parameter]["exp_avg"], optimizer.state[parameter]["exp_avg"])
