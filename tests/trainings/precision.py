"""Trainings in half and double precision, with scaled losses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from trainings.base import (
    forever,
    kind,
    mlp,
    small,
)


@kind
def bf16_autocast(device):
    yield (t := small(device))
    while True:
        t.optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16):
            loss = t.forward()
        loss.backward()
        t.optimizer.step()
        yield


@kind
def everything_inside_one_autocast(device):
    """Casts of the weights are cached until the block is left: a probe must neither use nor drop them."""
    with torch.autocast(device, torch.bfloat16):
        yield (t := small(device))
        yield from forever(t)


@kind
def bf16_weights(device):
    make = lambda: mlp().to(torch.bfloat16)  # noqa: E731
    yield (t := small(device, make, loss=lambda outputs, y: F.cross_entropy(outputs.float(), y)))
    t.data = [(x.bfloat16(), y) for x, y in t.data]
    yield from forever(t)


@kind
def float64_by_default(device):
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield (t := small(device))
        yield from forever(t)
    finally:
        torch.set_default_dtype(before)


@kind
def grad_scaler_that_overflows_at_first(device):
    yield (t := small(device))
    t.beside["scaler"] = scaler = torch.amp.GradScaler(device, init_scale=2.0**20, growth_interval=2)
    t.is_genuine = lambda: scaler.get_scale() < 2.0**20
    while True:
        t.optimizer.zero_grad()
        with torch.autocast(device, torch.float16):
            loss = t.forward()
        scaler.scale(loss).backward()
        scaler.step(t.optimizer)
        scaler.update()
        yield


@kind
def grad_scaler_with_accumulation_and_clipping(device):
    yield (t := small(device))
    t.beside["scaler"] = scaler = torch.amp.GradScaler(device, init_scale=64.0)
    while True:
        t.optimizer.zero_grad()
        for _ in range(2):
            with torch.autocast(device, torch.float16):
                loss = t.forward() / 2
            scaler.scale(loss).backward()
        scaler.unscale_(t.optimizer)
        nn.utils.clip_grad_norm_(t.model.parameters(), 0.5)
        scaler.step(t.optimizer)
        scaler.update()
        yield


@kind
def grad_scaler_with_a_fused_optimizer(device):
    """A fused optimiser is handed the scale, and leaves the weights alone itself where gradients overflow."""
    yield (t := small(device, optimizer=lambda m: torch.optim.Adam(m.parameters(), 3e-3, fused=True)))
    t.beside["scaler"] = scaler = torch.amp.GradScaler(device, init_scale=2.0**20)
    t.is_genuine = lambda: scaler.get_scale() < 2.0**20
    while True:
        t.optimizer.zero_grad()
        with torch.autocast(device, torch.float16):
            loss = t.forward()
        scaler.scale(loss).backward()
        scaler.step(t.optimizer)
        scaler.update()
        yield
