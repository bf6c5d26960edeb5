"""Healthy, and it does not look so: benign overfitting, XOR, a large gap, rates at the edge, a rate that changes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from verdict_bank.data import Split, blobs, digits, generator, xor_clusters
from verdict_bank.models import mlp, scaled
from verdict_bank.setting import FOR_REPORT, FOR_THRESHOLDS, Training, adamw, drops, healthy, of, sgd


def _benign(seed: int, dim: int, num: int, width: int, steps: int, norm: float = 10.0) -> Training:
    """Return two classes at ±μ, signal in every coordinate, 15 % flipped: all are fitted, and clean ones are right."""
    g = generator(seed)
    mu = torch.full((dim,), norm / dim**0.5)
    y = torch.arange(num + 800) % 2
    x = (2.0 * y - 1).unsqueeze(1) * mu + torch.randn(len(y), dim, generator=g)
    x = x * 8 / x.norm(dim=1).mean()
    wrong = torch.zeros(num, dtype=torch.bool)
    wrong[torch.randperm(num, generator=g)[: round(0.15 * num)]] = True
    data = Split(
        (x[:num], torch.where(wrong, 1 - y[:num], y[:num])),
        (x[num : num + 200], y[num : num + 200]),
        (x[num + 200 :], y[num + 200 :]),
        wrong,
    )
    return of(
        mlp(dim, width, 2), data, lambda m: sgd(m, 0.02, 0.9), steps, batch_size=None, num_probe=num, dense_every=2
    )


class _Signs(nn.Module):
    """Two-layer ReLU net with fixed output weights ±1/√m, two logits ±f."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(dim, width, bias=False)
        nn.init.normal_(self.hidden.weight, std=1e-4)
        self.register_buffer("signs", (1.0 - 2 * (torch.arange(width) % 2)) / width**0.5)

    def forward(self, x: Tensor) -> Tensor:
        f = self.hidden(x).relu() @ self.signs
        return torch.stack([-f / 2, f / 2], 1)


def _xor(seed: int, dim: int, norm: float, width: int, steps: int, num: int = 100) -> Training:
    data = xor_clusters(num, dim, norm, 0.15, seed)
    return of(
        _Signs(dim, width),
        data,
        lambda m: sgd(m, 0.02),
        steps,
        batch_size=None,
        num_probe=num,
        dense_every=1,
        every={"light": 2},
    )


def _half_squared(outputs: Tensor, targets: Tensor) -> Tensor:
    one_hot = nn.functional.one_hot(targets, outputs.shape[1]).to(outputs.dtype)
    return 0.5 * (outputs - one_hot).square().sum(1).mean()


def at_the_edge(seed: int, width: int, lr: float, num: int, steps: int) -> Training:
    """Return full-batch descent on digits whose curvature climbs to 2/lr, the loss falling all the way."""
    return of(
        mlp(64, width, 10, activation=nn.Tanh),
        digits(num, seed),
        lambda m: sgd(m, lr),
        steps,
        loss=_half_squared,
        batch_size=None,
        num_probe=num if num < 350 else 300,
    )


SETTINGS = [
    healthy(
        "benign-200",
        FOR_THRESHOLDS,
        lambda s: _benign(s, 200, 100, 256, 150),
        0,
        1,
        unjudged=frozenset({"label_noise"}),
    ),
    healthy("xor-2000", FOR_THRESHOLDS, lambda s: _xor(s, 2000, 12, 100, 200), unjudged=frozenset({"label_noise"})),
    healthy(
        "edge-digits-tanh",
        FOR_THRESHOLDS,
        lambda s: at_the_edge(s, 60, 0.1, 400, 900),
        unjudged=frozenset({"edge_of_stability"}),
    ),
    healthy(
        "warm-up-from-sharp",
        FOR_THRESHOLDS,  # sharp at the start, and rescued by the warm-up
        lambda s: of(
            scaled(mlp(64, 64, 64, 10), 2.0),
            digits(600, s),
            lambda m: sgd(m, 0.2, 0.0, 1e-3),
            500,
            lr_factor=lambda t: min(1.0, (t + 1) / 150),
        ),
    ),
    healthy(
        "rate-dropped-late",
        FOR_THRESHOLDS,
        lambda s: of(
            mlp(20, 80, 5),
            blobs(5, 20, 4000, s, distance=4),
            lambda m: sgd(m, 0.2, 0.5),
            600,
            batch_size=20,
            lr_factor=drops(350, by=0.05),
        ),
    ),
    healthy(
        "squared-error-digits",
        FOR_THRESHOLDS,
        lambda s: of(mlp(64, 100, 10), digits(1000, s), lambda m: sgd(m, 0.1, 0.9, 1e-3), 500, loss=_half_squared),
    ),
    healthy(
        "benign-500", FOR_REPORT, lambda s: _benign(s, 500, 120, 128, 150), 10, 11, unjudged=frozenset({"label_noise"})
    ),
    healthy("xor-4000", FOR_REPORT, lambda s: _xor(s, 4000, 16, 60, 200), 10, unjudged=frozenset({"label_noise"})),
    healthy(
        "edge-digits-deep",
        FOR_REPORT,
        lambda s: at_the_edge(s, 100, 0.15, 300, 800),
        10,
        unjudged=frozenset({"edge_of_stability"}),
    ),
    healthy(
        "noisy-small-batches",
        FOR_REPORT,  # a loss that jumps from batch to batch and gets there
        lambda s: of(
            mlp(20, 60, 60, 4),
            blobs(4, 20, 4000, s, distance=4),
            lambda m: sgd(m, 0.02, 0.8),
            800,
            batch_size=4,
            lr_factor=drops(600),
        ),
        10,
    ),
    healthy(
        "rate-dropped-thrice",
        FOR_REPORT,
        lambda s: of(
            mlp(16, 64, 64, 6, norm="layer"),
            blobs(6, 16, 4000, s, distance=4.5),
            lambda m: sgd(m, 0.1, 0.9),
            600,
            batch_size=50,
            lr_factor=drops(200, 350, 500, by=0.3),
        ),
        10,
    ),
    healthy(
        "squared-error-mixture",
        FOR_REPORT,
        lambda s: of(
            mlp(20, 64, 4),
            blobs(4, 20, 2000, s, distance=5),
            lambda m: adamw(m, 2e-3, 0.02),
            500,
            loss=_half_squared,
            lr_factor=drops(350),
        ),
        10,
    ),
    healthy(
        "regression-benign-linear",
        FOR_REPORT,  # more weights than samples, and low noise
        lambda s: of(
            mlp(300, 1),
            _wide_linear(s, 300, 200),
            lambda m: sgd(m, 0.05),
            500,
            loss=mse_loss,
            batch_size=None,
            num_probe=200,
        ),
        10,
    ),
]


def _wide_linear(seed: int, dim: int, num: int) -> Split:
    """Return y = w·x + small noise with inputs of a falling spectrum: interpolation is harmless."""
    g = generator(seed)
    scale = (1 + torch.arange(dim, dtype=torch.float32)) ** -0.5
    x = torch.randn(num + 1500, dim, generator=g) * scale
    y = (x @ (torch.randn(dim, generator=g) * scale) + 0.02 * torch.randn(len(x), generator=g)).unsqueeze(1)
    none = torch.zeros(num, dtype=torch.bool)
    return Split((x[:num], y[:num]), (x[num : num + 300], y[num : num + 300]), (x[num + 300 :], y[num + 300 :]), none)
