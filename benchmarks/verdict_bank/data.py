"""Data of the bank: scikit-learn's digits and what a generator draws. Nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from verdict_bank.setting import Batch


@dataclass(frozen=True)
class Split:
    """Three parts drawn alike; `is_wrong` (N_train,) marks train labels that were changed."""

    train: Batch
    heldout: Batch
    test: Batch
    is_wrong: Tensor


def generator(seed: int) -> torch.Generator:
    """Return a generator of its own for data."""
    return torch.Generator().manual_seed(1000 + seed)


def split(x: Tensor, y: Tensor, num_train: int, num_heldout: int, wrong_share: float, g: torch.Generator) -> Split:
    """Split at random, and change a share of the train labels to another class."""
    order = torch.randperm(len(y), generator=g)
    x, y = x[order], y[order]
    is_wrong = torch.zeros(num_train, dtype=torch.bool)
    is_wrong[torch.randperm(num_train, generator=g)[: round(wrong_share * num_train)]] = True
    train_y = y[:num_train].clone()
    if wrong_share:
        num_classes = int(y.max()) + 1
        shift = torch.randint(1, num_classes, (num_train,), generator=g)
        train_y[is_wrong] = (train_y[is_wrong] + shift[is_wrong]) % num_classes
    rest = num_train + num_heldout
    return Split((x[:num_train], train_y), (x[num_train:rest], y[num_train:rest]), (x[rest:], y[rest:]), is_wrong)


def digits(
    num_train: int, seed: int, wrong_share: float = 0.0, num_heldout: int = 300, as_images: bool = False
) -> Split:
    """Return digits (N, 64) or (N, 1, 8, 8) with pixels in [0, 1]."""
    bunch: Any = load_digits()
    x = torch.tensor(bunch.images, dtype=torch.float32) / 16
    x = x.unsqueeze(1) if as_images else x.flatten(1)
    return split(x, torch.tensor(bunch.target), num_train, num_heldout, wrong_share, generator(seed))


def blobs(
    num_classes: int,
    dim: int,
    num_train: int,
    seed: int,
    *,
    spread: float = 1.0,
    distance: float = 3.0,
    parts: int = 1,
    wrong_share: float = 0.0,
    counts: tuple[int, ...] | None = None,
) -> Split:
    """Return Gaussian classes of `parts` clusters each, centres of norm `distance`, noise of norm about `spread`√dim.

    Args:
        num_classes: C.
        dim: of the inputs.
        num_train: train samples; 300 are held out for the probe and 1,200 for the truth.
        seed: of the draw.
        spread: standard deviation of a coordinate.
        distance: norm of the centres.
        parts: clusters of a class.
        wrong_share: of the train labels.
        counts: train samples by class, in place of equal shares; the other parts stay balanced.
    """
    g = generator(seed)
    centres = torch.randn(num_classes * parts, dim, generator=g)
    centres = distance * centres / centres.norm(dim=1, keepdim=True)

    def draw(y: Tensor) -> Tensor:
        part = torch.randint(0, parts, y.shape, generator=g)
        return centres[y * parts + part] + spread * torch.randn(len(y), dim, generator=g)

    def balanced(n: int) -> Tensor:
        return torch.arange(n) % num_classes

    if counts is None:
        y = torch.cat([balanced(num_train), balanced(1500)])
        return split(draw(y), y, num_train, 300, wrong_share, g)
    y = torch.cat([torch.full((n,), c) for c, n in enumerate(counts)])
    y = y[torch.randperm(len(y), generator=g)]
    other, more = balanced(300), balanced(1200)
    return Split((draw(y), y), (draw(other), other), (draw(more), more), torch.zeros(len(y), dtype=torch.bool))


def regression(num_train: int, dim: int, seed: int, noise: float = 0.1, kind: str = "sine") -> Split:
    """Return y = f(x) + noise with x normal: `sine` of two directions, `linear`, or a `product` of two."""
    g = generator(seed)
    x = torch.randn(num_train + 1500, dim, generator=g)
    w = torch.randn(dim, 2, generator=g) / dim**0.5
    u = x @ w
    f = {"sine": torch.sin(2 * u[:, 0]) + u[:, 1], "linear": u[:, 0], "product": u[:, 0] * u[:, 1] * 2}[kind]
    y = (f + noise * torch.randn(len(f), generator=g)).unsqueeze(1)
    return split(x, y, num_train, 300, 0.0, g)


def modular_addition(modulus: int, train_share: float, seed: int) -> Split:
    """Return (a + b) mod p as two one-hots (N, 2p); the test part is the held-out part."""
    g = generator(seed)
    a, b = torch.meshgrid(torch.arange(modulus), torch.arange(modulus), indexing="ij")
    a, b = a.flatten(), b.flatten()
    eye = torch.eye(modulus)
    x, y = torch.cat([eye[a], eye[b]], 1), (a + b) % modulus
    order = torch.randperm(len(y), generator=g)
    x, y = x[order], y[order]
    n = round(train_share * len(y))
    return Split((x[:n], y[:n]), (x[n:], y[n:]), (x[n:], y[n:]), torch.zeros(n, dtype=torch.bool))


def xor_clusters(num_train: int, dim: int, norm: float, flipped: float, seed: int) -> Split:
    """Return four clusters at ±μ₁ (class 1) and ±μ₂ (class 0) with unit noise; some train labels flipped."""
    g = generator(seed)
    mu = torch.zeros(2, dim)
    mu[0, : dim // 2] = norm / (dim // 2) ** 0.5
    mu[1, dim // 2 :] = norm / (dim - dim // 2) ** 0.5

    def draw(n: int) -> Batch:
        y = torch.arange(n) % 2
        sign = 2.0 * (torch.arange(n) // 2 % 2) - 1
        x = mu[1 - y] * sign.unsqueeze(1) + torch.randn(n, dim, generator=g)
        return x, y

    x, y = draw(num_train)
    is_wrong = torch.zeros(num_train, dtype=torch.bool)
    is_wrong[torch.randperm(num_train, generator=g)[: round(flipped * num_train)]] = True
    return Split((x, torch.where(is_wrong, 1 - y, y)), draw(200), draw(400), is_wrong)


def copy_task(num_symbols: int, length: int, num_train: int, seed: int) -> Split:
    """Return random symbols, a mark and the symbols again: inputs and next symbols, each (N, 2·length).

    Only the repeat is asked for; -100 stands elsewhere.
    """
    g = generator(seed)
    first = torch.randint(0, num_symbols, (num_train + 400, length), generator=g)
    mark = torch.full((len(first), 1), num_symbols)
    whole = torch.cat([first, mark, first], 1)
    x, y = whole[:, :-1], whole[:, 1:].clone()
    y[:, :length] = -100
    return _three(x, y, num_train)


def markov(num_symbols: int, length: int, num_train: int, seed: int, branches: int = 3) -> Split:
    """Return symbols of a fixed random chain with `branches` successors each, as (inputs, next symbols)."""
    g = generator(seed)
    chain = torch.randint(0, num_symbols, (num_symbols, branches), generator=torch.Generator().manual_seed(7))
    whole = torch.randint(0, num_symbols, (num_train + 400, 1), generator=g)
    for _ in range(length):
        pick = torch.randint(0, branches, (len(whole),), generator=g)
        whole = torch.cat([whole, chain[whole[:, -1], pick].unsqueeze(1)], 1)
    return _three(whole[:, :-1], whole[:, 1:], num_train)


def _three(x: Tensor, y: Tensor, num_train: int) -> Split:
    a, b = num_train, num_train + 150
    return Split((x[:a], y[:a]), (x[a:b], y[a:b]), (x[b:], y[b:]), torch.zeros(num_train, dtype=torch.bool))
