"""Trainings with hooks of the user."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import DataLoader

from trainings.base import (
    BATCH,
    AugmentedImages,
    conv_net,
    forever,
    kind,
    small,
)


@kind
def user_hooks(device):
    t = small(device, conv_net, data=DataLoader(AugmentedImages(), BATCH))
    calls = t.beside["calls of hooks"] = []

    def note(what):
        return lambda *_: calls.append(what)

    t.model[0].register_forward_pre_hook(note("forward pre"))
    t.model[0].register_forward_hook(note("forward"))
    t.model[5].register_full_backward_pre_hook(note("backward pre"))
    t.model[5].register_full_backward_hook(note("backward"))
    t.model[5].register_forward_hook(lambda m, inputs, output: calls.append(m.training) or output * 1.5)
    t.model[0].weight.register_hook(lambda g: calls.append("tensor") or g * 2)
    t.model[5].weight.register_post_accumulate_grad_hook(note("accumulated"))
    of_all = nn.modules.module.register_module_forward_hook(note("of all"))
    of_steps = register_optimizer_step_post_hook(note("of steps"))
    t.optimizer.register_step_pre_hook(note("step pre"))
    t.optimizer.register_step_post_hook(note("step post"))
    expected = {"forward pre", "forward", "backward pre", "backward", "tensor", "accumulated", "of all", "of steps",
                "step pre", "step post"}  # fmt: skip
    t.is_genuine = lambda: expected <= set(calls)
    try:
        yield t
        yield from forever(t)
    finally:
        of_all.remove()
        of_steps.remove()


@kind
def steps_taken_in_the_backward_pass(device):
    """Each parameter of a layer has an optimiser of its own, stepped by a hook as soon as its gradient is there."""
    yield (t := small(device))
    own = {p: torch.optim.SGD([p], 0.05, momentum=0.9) for p in t.model[4].parameters()}

    def step_now(p):
        own[p].step()
        own[p].zero_grad()

    for p in own:
        p.register_post_accumulate_grad_hook(step_now)
    t.beside |= {f"optimizer {i}": o for i, o in enumerate(own.values())}
    yield from forever(t)
