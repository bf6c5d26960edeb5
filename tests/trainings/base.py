"""The ways people train, each as the loop that they write: what the neutrality matrix runs with and without a watch.

A kind is a generator function of the device. It yields a `Training` first, and then once after every iteration of its
loop. `trainings.KINDS` has them all by name.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer
from torch.utils.data import DataLoader, Dataset, TensorDataset

NUM_SAMPLES, NUM_INPUTS, NUM_CLASSES, BATCH = 12, 4, 3, 6


@dataclass
class Training:
    """A training under way: what is watched, and what is compared at the end besides."""

    model: nn.Module
    optimizer: Optimizer
    data: Any = None  # a loader, in place of the vectors of this file
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    options: Mapping[str, Any] = field(default_factory=dict)  # of the watch
    beside: dict[str, Any] = field(default_factory=dict)  # modules, optimisers, schedulers, scalers, generators, values
    may_warn: str = "nothing"  # what a warning of the watch may be about
    is_genuine: Callable[[], bool] = lambda: True  # whether the training was of the kind that its name says
    losses: list[float] = field(default_factory=list)
    _batches: Iterator[tuple[Tensor, Tensor]] | None = None

    def __post_init__(self) -> None:
        self.device = next(self.model.parameters()).device
        self.data = vectors() if self.data is None else self.data

    def batch(self) -> tuple[Tensor, Tensor]:
        if self._batches is None:
            self._batches = itertools.chain.from_iterable(itertools.repeat(self.data))
        x, y = next(self._batches)
        return x.to(self.device), y.to(self.device)

    def forward(self) -> Tensor:
        x, y = self.batch()
        loss = self.loss(self.model(x), y)
        self.losses.append(loss.item())
        return loss

    def backward(self) -> None:
        self.optimizer.zero_grad()
        self.forward().backward()

    def step(self) -> None:
        self.backward()
        self.optimizer.step()


Kind = Callable[[str], Iterator[Training | None]]
KINDS: dict[str, Kind] = {}


def kind(function: Kind) -> Kind:
    KINDS[function.__name__] = function
    return function


def vectors(shuffle: bool = True, **options: Any) -> DataLoader:
    y = torch.arange(NUM_SAMPLES) % NUM_CLASSES
    x = torch.randn(NUM_SAMPLES, NUM_INPUTS, generator=torch.Generator().manual_seed(11)) + y[:, None]
    return DataLoader(TensorDataset(x.to(torch.get_default_dtype()), y), BATCH, shuffle=shuffle, **options)


class AugmentedImages(Dataset):
    """Images disturbed by draws from Python's, NumPy's and torch's generators; it counts what it has given."""

    def __init__(self) -> None:
        self.y = torch.arange(NUM_SAMPLES) % NUM_CLASSES
        noise = torch.randn(NUM_SAMPLES, 1, 4, 4, generator=torch.Generator().manual_seed(11))
        self.x = noise + self.y[:, None, None, None]
        self.num_given = 0

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.num_given += 1
        x = self.x[index] + 0.1 * torch.randn(1, 4, 4) * random.random() + 0.1 * np.random.rand()
        return x.float(), self.y[index]


def mlp() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(NUM_INPUTS, 3), nn.BatchNorm1d(3), nn.ReLU(inplace=True), nn.Dropout(0.2), nn.Linear(3, NUM_CLASSES)
    )


def conv_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Dropout2d(0.2), nn.Flatten(),
        nn.Linear(8, NUM_CLASSES),
    )  # fmt: skip


def sgd(model: nn.Module, **options: Any) -> Optimizer:
    return torch.optim.SGD(model.parameters(), **({"lr": 0.05, "momentum": 0.9} | options))


def small(device: str, make: Callable[[], nn.Module] = mlp, optimizer: Callable = sgd, **options: Any) -> Training:
    model = make().to(device)
    return Training(model, optimizer(model), **options)


def forever(training: Training) -> Iterator[None]:
    while True:
        training.step()
        yield
