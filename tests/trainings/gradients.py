"""Trainings that treat their gradients in a way of their own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from trainings.base import (
    NUM_CLASSES,
    NUM_INPUTS,
    kind,
    small,
)


@kind
def accumulation(device):
    yield (t := small(device))
    while True:
        t.optimizer.zero_grad()
        for _ in range(3):
            (t.forward() / 3).backward()
        t.optimizer.step()
        yield


@kind
def clipping_by_norm(device):
    yield (t := small(device))
    while True:
        t.backward()
        t.beside["norm"] = norm = nn.utils.clip_grad_norm_(t.model.parameters(), 0.1)
        t.optimizer.step()
        t.is_genuine = lambda norm=norm: float(norm) > 0.1
        yield


@kind
def clipping_by_value(device):
    yield (t := small(device))
    while True:
        t.backward()
        nn.utils.clip_grad_value_(t.model.parameters(), 0.01)
        t.optimizer.step()
        yield


@kind
def gradients_zeroed_in_place(device):
    yield (t := small(device))
    while True:
        t.optimizer.zero_grad(set_to_none=False)
        t.forward().backward()
        t.optimizer.step()
        yield


@kind
def gradients_never_zeroed(device):
    yield (t := small(device))
    while True:
        t.forward().backward()
        t.optimizer.step()
        yield


@kind
def gradients_zeroed_after_the_step(device):
    yield (t := small(device))
    while True:
        t.forward().backward()
        t.optimizer.step()
        t.model.zero_grad()
        yield


@kind
def gradient_penalty(device):
    """The user's own double backward, with a graph that outlives the step."""
    yield (t := small(device))
    while True:
        x, y = t.batch()
        t.optimizer.zero_grad()
        loss = F.cross_entropy(t.model(x.requires_grad_()), y)
        slope = torch.autograd.grad(loss, x, create_graph=True)[0]
        (loss + slope.square().sum()).backward()
        t.optimizer.step()
        t.losses.append(loss.item())
        t.beside["slope"] = slope
        yield


@kind
def gradients_of_single_samples_by_vmap(device):
    """As in differentially private training: each sample's gradient is clipped, noise is added."""
    yield (t := small(device, lambda: nn.Sequential(nn.Linear(NUM_INPUTS, 3), nn.Tanh(), nn.Linear(3, NUM_CLASSES))))

    def loss_of(values, x, y):
        return F.cross_entropy(torch.func.functional_call(t.model, values, (x[None],)), y[None])

    each = torch.func.vmap(torch.func.grad_and_value(loss_of), (None, 0, 0))
    while True:
        gradients, losses = each({name: p.detach() for name, p in t.model.named_parameters()}, *t.batch())
        for name, p in t.model.named_parameters():
            p.grad = gradients[name].clamp(-0.1, 0.1).mean(0) + 0.01 * torch.randn_like(p)
        t.losses.append(losses.mean().item())
        t.optimizer.step()
        yield
