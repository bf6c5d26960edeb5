"""Trainings that differ in the optimiser, and in how often it steps."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from trainings.base import (
    BATCH,
    KINDS,
    NUM_INPUTS,
    AugmentedImages,
    Training,
    conv_net,
    forever,
    kind,
    sgd,
    small,
)


@kind
def momentum_and_augmented_images(device):
    images = AugmentedImages()
    yield (t := small(device, conv_net, data=DataLoader(images, BATCH, shuffle=True), beside={"images": images}))
    yield from forever(t)


@kind
def nesterov_with_weight_decay(device):
    yield (t := small(device, optimizer=lambda m: sgd(m, nesterov=True, weight_decay=1e-3)))
    yield from forever(t)


def _with_optimizer(name: str, cls: type, **options: Any) -> None:
    def train(device):
        yield (t := small(device, optimizer=lambda m: cls(m.parameters(), **options)))
        yield from forever(t)

    KINDS[name] = train


_with_optimizer("adam_foreach_amsgrad", torch.optim.Adam, lr=3e-3, foreach=True, amsgrad=True)
_with_optimizer("adamw_fused", torch.optim.AdamW, lr=3e-3, fused=True)
_with_optimizer("adagrad_maximising", torch.optim.Adagrad, lr=3e-3, maximize=True, foreach=False)
_with_optimizer("adafactor", torch.optim.Adafactor, lr=1e-2)
_with_optimizer("rmsprop_centered", torch.optim.RMSprop, lr=1e-3, centered=True, momentum=0.5)


@kind
def adam_capturable_on_a_gpu(device):
    yield (t := small(device, optimizer=lambda m: torch.optim.Adam(m.parameters(), 3e-3, capturable=True)))
    yield from forever(t)


def _lbfgs(device, **options):
    t = small(device, optimizer=lambda m: torch.optim.LBFGS(m.parameters(), max_iter=3, **options))
    yield t
    while True:
        x, y = t.batch()

        def closure(x=x, y=y):
            t.optimizer.zero_grad()
            loss = F.cross_entropy(t.model(x), y)
            loss.backward()
            t.losses.append(loss.item())
            return loss

        t.optimizer.step(closure)
        yield


@kind
def lbfgs(device):
    yield from _lbfgs(device)


@kind
def lbfgs_with_line_search(device):
    yield from _lbfgs(device, line_search_fn="strong_wolfe")


@kind
def sharpness_aware_minimisation(device):
    """Two backward passes a step, weights moved there and back by hand."""
    yield (t := small(device))
    while True:
        x, y = t.batch()
        t.optimizer.zero_grad()
        F.cross_entropy(t.model(x), y).backward()
        with torch.no_grad():
            moves = [0.05 * p.grad / (p.grad.norm() + 1e-12) for p in t.model.parameters()]
            for p, move in zip(t.model.parameters(), moves, strict=True):
                p.add_(move)
        t.optimizer.zero_grad()
        loss = F.cross_entropy(t.model(x), y)
        loss.backward()
        t.losses.append(loss.item())
        with torch.no_grad():
            for p, move in zip(t.model.parameters(), moves, strict=True):
                p.sub_(move)
        t.optimizer.step()
        yield


@kind
def two_optimizers_of_a_gan(device):
    class Gan(nn.Module):
        def __init__(self):
            super().__init__()
            self.generator = nn.Sequential(nn.Linear(2, NUM_INPUTS), nn.Tanh())
            self.critic = nn.Sequential(nn.Linear(NUM_INPUTS, 3), nn.LeakyReLU(0.2), nn.Linear(3, 1))

        def forward(self, x):
            return self.critic(x)

    def real_against_made(model, batch):
        made = model.generator(batch[0][:, :2])
        return (real := model(batch[0])), F.softplus(-real).mean() + F.softplus(model(made)).mean()

    gan = Gan().to(device)
    of_critic = torch.optim.Adam(gan.critic.parameters(), 1e-2, betas=(0.0, 0.9))
    of_generator = torch.optim.Adam(gan.generator.parameters(), 1e-2, betas=(0.0, 0.9))
    t = Training(gan, of_critic, options={"loss": None, "forward": real_against_made})
    t.beside["optimizer of the generator"] = of_generator
    yield t
    while True:
        x, _ = t.batch()
        made = gan.generator(torch.randn(len(x), 2, device=device))
        of_critic.zero_grad()
        loss = F.softplus(-gan(x)).mean() + F.softplus(gan(made.detach())).mean()
        loss.backward()
        of_critic.step()
        of_generator.zero_grad()
        F.softplus(-gan(made)).mean().backward()
        of_generator.step()
        t.losses.append(loss.item())
        yield
