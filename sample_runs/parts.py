"""What the samples share: data that needs no download, small networks, the order of batches, and the training loop.

Shapes: N samples, D inputs, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

Loss = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class Data:
    """A train set, of which some labels may be wrong, and a test set whose labels are right."""

    x: Tensor  # (N, D)
    y: Tensor  # (N,) as they are trained on
    y_true: Tensor  # (N,)
    x_test: Tensor
    y_test: Tensor

    @property
    def train(self) -> tuple[Tensor, Tensor]:
        """The train set with the labels that are trained on."""
        return self.x, self.y

    @property
    def test(self) -> tuple[Tensor, Tensor]:
        """The test set."""
        return self.x_test, self.y_test

    @property
    def wrong(self) -> list[int]:
        """The places of the wrong labels in the train set."""
        return torch.nonzero(self.y != self.y_true).flatten().tolist()

    @property
    def flipped_fit(self) -> dict[str, Any]:
        """The options of the metric `flipped_fit` for this train set."""
        return {"indices": self.wrong, "true_labels": self.y_true[self.wrong].tolist()}


def digits(num_train: int, seed: int, *, wrong_share: float = 0.0, flat: bool = True) -> Data:
    """Return scikit-learn's 8×8 digits with grey levels from 0 to 1, split at random, some labels exchanged.

    A wrong label is another class, drawn evenly.

    Raises:
        ValueError: if there are not that many digits, or the share is not within 0 to 1.

    >>> data = digits(600, seed=0, wrong_share=0.3)
    >>> data.x.shape, len(data.y_test), len(data.wrong)
    (torch.Size([600, 64]), 1197, 180)
    """
    bunch: Any = load_digits()
    x = torch.tensor(bunch.images, dtype=torch.float32) / 16
    x = x.flatten(1) if flat else x.unsqueeze(1)
    y = torch.tensor(bunch.target, dtype=torch.long)
    if not 0 < num_train < len(y) or not 0 <= wrong_share <= 1:
        raise ValueError(
            f"expected 0 < num_train < {len(y)} and 0 <= wrong_share <= 1, got num_train={num_train}, "
            f"wrong_share={wrong_share} in digits(); leave some digits to test on"
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(y), generator=generator)
    x, y = x[order], y[order]
    return Data(x[:num_train], with_wrong_labels(y[:num_train], wrong_share, 10, generator), y[:num_train],
                x[num_train:], y[num_train:])  # fmt: skip


def with_wrong_labels(y: Tensor, share: float, num_classes: int, generator: torch.Generator) -> Tensor:
    """Return the labels (N,) with a share of them, drawn at random, changed into another class.

    >>> y = torch.zeros(10, dtype=torch.long)
    >>> int((with_wrong_labels(y, 0.3, 5, torch.Generator().manual_seed(0)) != y).sum())
    3
    """
    chosen = torch.randperm(len(y), generator=generator)[: round(share * len(y))]
    shift = torch.randint(1, num_classes, (len(chosen),), generator=generator)  # never 0: the label does change
    changed = y.clone()
    changed[chosen] = (changed[chosen] + shift) % num_classes
    return changed


def mixture(num_per_class: list[int], num_inputs: int, seed: int, *, distance: float, num_test: int = 100) -> Data:
    """Return Gaussian classes of unit spread round means of norm `distance`, with directions drawn at random.

    Args:
        num_per_class: train samples of each class.
        num_inputs: D.
        seed: of means and samples.
        distance: norm of the class means.
        num_test: test samples of each class.

    >>> mixture([5, 3], num_inputs=4, seed=0, distance=3.0).y.tolist()
    [0, 0, 0, 0, 0, 1, 1, 1]
    """
    generator = torch.Generator().manual_seed(seed)
    means = distance * nn.functional.normalize(torch.randn(len(num_per_class), num_inputs, generator=generator))
    labels = [torch.repeat_interleave(torch.arange(len(num_per_class)), torch.tensor(counts))
              for counts in (num_per_class, [num_test] * len(num_per_class))]  # fmt: skip
    x, x_test = (means[y] + torch.randn(len(y), num_inputs, generator=generator) for y in labels)
    return Data(x, labels[0], labels[0], x_test, labels[1])


def modular_sums(modulus: int, train_share: float, seed: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return x (two one-hots a pair, (N, 2p)) and y = (a + b) mod p of all pairs, split at random into train and test.

    >>> (x, y), (x_test, y_test) = modular_sums(5, 0.6, seed=0)
    >>> x.shape, len(y_test)
    (torch.Size([15, 10]), 10)
    """
    a, b = (part.flatten() for part in torch.meshgrid(torch.arange(modulus), torch.arange(modulus), indexing="ij"))
    x = torch.cat([nn.functional.one_hot(part, modulus).float() for part in (a, b)], dim=1)
    y = (a + b) % modulus
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    train, test = order.tensor_split([round(train_share * len(y))])
    return (x[train], y[train]), (x[test], y[test])


def mlp(*widths: int, activation: type[nn.Module] = nn.ReLU, norm: Callable[[int], nn.Module] | None = None,
        dropout: float = 0.0, bias: bool = True) -> nn.Sequential:  # fmt: skip
    """Return linear layers of these widths, inputs and outputs included, with a non-linearity between each two.

    >>> mlp(64, 32, 10)
    Sequential(
      (0): Linear(in_features=64, out_features=32, bias=True)
      (1): ReLU()
      (2): Linear(in_features=32, out_features=10, bias=True)
    )
    """
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths[:-1]):
        layers.append(nn.Linear(width_in, width_out, bias=bias))
        layers += [norm(width_out)] if norm is not None else []
        layers.append(activation())
        layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1], bias=bias))


def batches(num_samples: int, batch_size: int, num_steps: int, seed: int) -> Iterator[Tensor]:
    """Yield the places of each batch, (batch_size,): whole batches, shuffled anew in every epoch.

    >>> [rows.tolist() for rows in batches(4, 2, 3, seed=0)]
    [[0, 1], [3, 2], [0, 2]]
    """
    generator = torch.Generator().manual_seed(seed)
    size = min(batch_size, num_samples)
    rows = torch.empty(0, dtype=torch.long)
    for _ in range(num_steps):
        if len(rows) < size:
            rows = torch.randperm(num_samples, generator=generator)
        yield rows[:size]
        rows = rows[size:]


def take_step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Take one step down the gradient of a loss."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def descend(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Loss, data: tuple[Tensor, Tensor],
            num_steps: int, *, batch_size: int | None = None, seed: int = 0) -> None:  # fmt: skip
    """Train on mini-batches, or on all samples at once if no batch size is given.

    Args:
        model: in training mode.
        optimizer: of its parameters.
        loss: loss(model(x), y), a mean.
        data: x and y.
        num_steps: optimiser steps.
        batch_size: samples of a step.
        seed: of the order.
    """
    x, y = data
    if batch_size is None:
        for _ in range(num_steps):
            take_step(optimizer, loss(model(x), y))
        return
    for rows in batches(len(y), batch_size, num_steps, seed):
        take_step(optimizer, loss(model(x[rows]), y[rows]))


def half_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return ½ · the mean over samples of the squared error; class labels stand for one-hot targets.

    >>> float(half_squared_error(torch.tensor([[1.0, 1.0]]), torch.tensor([0])))
    0.5
    """
    if not targets.is_floating_point():
        targets = nn.functional.one_hot(targets, outputs.shape[1]).to(outputs.dtype)
    return 0.5 * (outputs - targets).square().flatten(1).sum(dim=1).mean()
