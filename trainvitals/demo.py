"""The demo: a small CNN that first learns handwritten digits, then memorises wrong labels.

scikit-learn's digits come with the package (8×8 grey images, 10 classes, 1,797 samples), so nothing is
downloaded. A share of the training labels is wrong: the held-out loss falls while the digits are
learned and rises while the wrong labels are memorised. The script uses public names only.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import trainvitals as tv

NUM_CLASSES = 10
# Steps between measurements. The dearest, Hessian products and per-sample gradients, are measured least often.
EVERY = {
    "light": 10, "gap": 10, "loss": 10, "accuracy": 10, "overtraining": 10, "spike": 10, "update.ratio": 10, "nc": 20,
    "grad": 50, "stability": 50, "hessian": 100, "hessian.density": 200,
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how the demo goes.

    On seeds 0 to 4 the held-out loss turned at steps 180 to 260, accuracy on the held-out digits rose to
    0.85–0.88 and fell to 0.60–0.67, and the train loss ended below 0.01.
    """

    num_train: int = 600
    num_probe: int = 300  # training samples that the train probe holds
    wrong_share: float = 0.4  # of the training labels
    widths: tuple[int, int, int] = (8, 16, 32)  # channels of both convolutions, units of the hidden layer
    learning_rate: float = 0.02
    momentum: float = 0.9
    batch_size: int = 32
    num_steps: int = 1200
    seed: int = 0


@dataclass(frozen=True)
class Digits:
    """Images (N, 1, 8, 8) in [0, 1] and labels (N,), some of the training labels wrong."""

    train: tuple[Tensor, Tensor]
    heldout: tuple[Tensor, Tensor]
    is_wrong: Tensor  # (N_train,)


def digits(num_train: int, wrong_share: float, seed: int) -> Digits:
    """Return the digits, split at random, with a share of the training labels replaced by another class.

    Raises:
        ValueError: if there are not that many digits, or the share is not within 0 to 1.

    >>> int(digits(num_train=600, wrong_share=0.4, seed=0).is_wrong.sum())
    240
    """
    bunch: Any = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 16  # grey levels 0..16
    labels = torch.tensor(bunch.target, dtype=torch.long)
    if not 0 < num_train < len(labels) or not 0 <= wrong_share <= 1:
        raise ValueError(
            f"expected 0 < num_train < {len(labels)} and 0 <= wrong_share <= 1, got num_train={num_train}, "
            f"wrong_share={wrong_share} in digits(); leave some digits to hold out"
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    images, labels = images[order], labels[order]
    train_labels = labels[:num_train].clone()
    is_wrong = torch.zeros(num_train, dtype=torch.bool)
    is_wrong[torch.randperm(num_train, generator=generator)[: round(wrong_share * num_train)]] = True
    shift = torch.randint(1, NUM_CLASSES, (num_train,), generator=generator)  # never 0: the label does change
    train_labels[is_wrong] = (train_labels[is_wrong] + shift[is_wrong]) % NUM_CLASSES
    return Digits((images[:num_train], train_labels), (images[num_train:], labels[num_train:]), is_wrong)


def small_cnn(widths: tuple[int, int, int]) -> nn.Module:
    """Return two convolutions with BatchNorm, one hidden layer and the classifier."""
    first, second, hidden = widths
    layers = {  # no bias before BatchNorm, which would take it out again
        "conv1": nn.Conv2d(1, first, 3, padding=1, bias=False),
        "norm1": nn.BatchNorm2d(first), "relu1": nn.ReLU(),
        "conv2": nn.Conv2d(first, second, 3, padding=1, bias=False),
        "norm2": nn.BatchNorm2d(second), "relu2": nn.ReLU(),
        "pool": nn.MaxPool2d(2), "flatten": nn.Flatten(),  # (N, 16 · second)
        "hidden": nn.Linear(16 * second, hidden), "relu3": nn.ReLU(),
        "classifier": nn.Linear(hidden, NUM_CLASSES),
    }  # fmt: skip
    return nn.Sequential(OrderedDict(layers))


def train(
    recipe: Recipe, store: str | os.PathLike[str] = "runs/", on_step: Callable[[int, float], None] | None = None
) -> str:
    """Train the demo, watched with the default probes, and return the id of the run.

    Args:
        recipe: sizes, rates, seed.
        store: folder of the run.
        on_step: called after each step with the number of steps taken and the loss of the batch.
    """
    data = digits(recipe.num_train, recipe.wrong_share, recipe.seed)
    torch.manual_seed(recipe.seed)
    model, loss = small_cnn(recipe.widths), nn.functional.cross_entropy
    optimizer = torch.optim.SGD(model.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum)
    probe = tuple(part[: recipe.num_probe] for part in data.train)  # the split is random: any part is a fair one
    with tv.watch(model, optimizer, loss=loss, train=probe, heldout=data.heldout,
                  name="digits-cnn", store=store, every=EVERY, budget=None) as run:  # fmt: skip
        for step, (x, y) in enumerate(batches(*data.train, recipe), start=1):
            optimizer.zero_grad()
            batch_loss = loss(model(x), y)
            batch_loss.backward()
            optimizer.step()
            run.log(batch_loss=batch_loss.item())
            if on_step is not None:
                on_step(step, batch_loss.item())
    return run.id


def batches(images: Tensor, labels: Tensor, recipe: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield `recipe.num_steps` whole batches, shuffled anew in every epoch."""
    generator = torch.Generator().manual_seed(recipe.seed + 1)
    size = min(recipe.batch_size, len(labels))
    rows = torch.empty(0, dtype=torch.long)
    for _ in range(recipe.num_steps):
        if len(rows) < size:
            rows = torch.randperm(len(labels), generator=generator)
        yield images[rows[:size]], labels[rows[:size]]
        rows = rows[size:]
