"""Generated data, learned well: regression, autoencoders, language, mixtures, imbalance, limits set by the data."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import mse_loss

from verdict_bank.data import Split, blobs, digits, generator, markov, regression
from verdict_bank.models import Transformer, mlp
from verdict_bank.setting import FOR_REPORT, FOR_THRESHOLDS, Batch, Training, adamw, cosine, healthy, of, sgd


def autoencoder(seed: int, *widths: int, num_train: int = 900) -> Split:
    """Return digits as inputs and targets."""
    data = digits(num_train, seed)
    parts = [(x, x) for x, _ in (data.train, data.heldout, data.test)]
    return Split(*parts, data.is_wrong)


def _fresh(centres_seed: int, num_classes: int, dim: int, distance: float, spread: float):
    """Return an augmentation that replaces a batch by new samples of the mixture that `blobs` draws from."""
    g = generator(centres_seed)
    centres = torch.randn(num_classes, dim, generator=g)
    centres = distance * centres / centres.norm(dim=1, keepdim=True)

    def draw(batch: Batch, step: int) -> Batch:
        h = torch.Generator().manual_seed(step)
        y = torch.randint(0, num_classes, (len(batch[1]),), generator=h)
        return centres[y] + spread * torch.randn(len(y), dim, generator=h), y

    return draw


def _overlapping(seed: int, num_classes: int, dim: int, distance: float, width: int, steps: int) -> Training:
    """Return a mixture whose classes overlap, learned from data that never repeats: the plateau is Bayes' error."""
    data = blobs(num_classes, dim, 1000, seed, distance=distance)
    return of(
        mlp(dim, width, num_classes),
        data,
        lambda m: sgd(m, 0.05, 0.9),
        steps,
        probes=("default", "probe.knn"),
        augment=_fresh(seed, num_classes, dim, distance, 1.0),
    )


SETTINGS = [
    healthy(
        "regression-tanh-adam",
        FOR_THRESHOLDS,
        lambda s: of(
            mlp(5, 64, 64, 1, activation=nn.Tanh),
            regression(1500, 5, s),
            lambda m: adamw(m, 2e-3),
            900,
            loss=mse_loss,
            lr_factor=cosine(900),
        ),
    ),
    healthy(
        "regression-noisy",
        FOR_THRESHOLDS,  # the plateau is the noise of the targets
        lambda s: of(
            mlp(4, 16, 1),
            regression(2000, 4, s, noise=0.6, kind="linear"),
            lambda m: sgd(m, 0.02, 0.9),
            500,
            loss=mse_loss,
        ),
    ),
    healthy(
        "autoencoder-relu",
        FOR_THRESHOLDS,
        lambda s: of(mlp(64, 48, 16, 48, 64), autoencoder(s), lambda m: adamw(m, 2e-3), 600, loss=mse_loss),
    ),
    healthy(
        "markov-transformer",
        FOR_THRESHOLDS,
        lambda s: of(
            Transformer(12, 16, 32, 2, 1),
            markov(12, 16, 1500, s),
            lambda m: adamw(m, 3e-3, 0.1),
            250,
            batch_size=32,
            num_probe=64,
            lr_factor=cosine(250, 25),
        ),
    ),
    healthy(
        "mixture-gd",
        FOR_THRESHOLDS,
        lambda s: of(mlp(20, 50, 4), blobs(4, 20, 800, s, distance=6), lambda m: sgd(m, 0.1), 500, batch_size=None),
    ),
    healthy("mixture-overlapping", FOR_THRESHOLDS, lambda s: _overlapping(s, 4, 10, 1.5, 40, 600)),
    healthy(
        "imbalance-fine",
        FOR_THRESHOLDS,
        lambda s: of(
            mlp(16, 64, 4),
            blobs(4, 16, 0, s, distance=6, counts=(500, 300, 150, 75)),
            lambda m: adamw(m, 2e-3, 0.05),
            400,
        ),
    ),
    healthy(
        "mixture-parts-momentum",
        FOR_THRESHOLDS,
        lambda s: of(
            mlp(30, 128, 5), blobs(5, 30, 6000, s, distance=5, parts=3), lambda m: sgd(m, 0.01, 0.9), 400, batch_size=50
        ),
    ),
    healthy(
        "regression-relu-sgd",
        FOR_REPORT,
        lambda s: of(mlp(8, 100, 100, 1), regression(3000, 8, s), lambda m: sgd(m, 0.02, 0.9), 900, loss=mse_loss),
    ),
    healthy(
        "regression-noisy-tanh",
        FOR_REPORT,
        lambda s: of(
            mlp(6, 24, 1, activation=nn.Tanh),
            regression(2500, 6, s, noise=0.7),
            lambda m: adamw(m, 3e-3, 0.01),
            600,
            loss=mse_loss,
        ),
    ),
    healthy(
        "autoencoder-gelu",
        FOR_REPORT,
        lambda s: of(
            mlp(64, 96, 10, 96, 64, activation=nn.GELU),
            autoencoder(s, num_train=1100),
            lambda m: adamw(m, 1e-3, 0.01),
            700,
            loss=mse_loss,
            batch_size=100,
        ),
    ),
    healthy(
        "markov-transformer-deep",
        FOR_REPORT,
        lambda s: of(
            Transformer(20, 12, 48, 4, 2),
            markov(20, 12, 2500, s, branches=2),
            lambda m: adamw(m, 2e-3, 0.01),
            220,
            batch_size=32,
            num_probe=64,
            lr_factor=cosine(220, 30),
            clip=1.0,
        ),
    ),
    healthy(
        "mixture-gd-deep",
        FOR_REPORT,
        lambda s: of(
            mlp(12, 40, 40, 6, activation=nn.Tanh),
            blobs(6, 12, 900, s, distance=5),
            lambda m: sgd(m, 0.3),
            500,
            batch_size=None,
        ),
    ),
    healthy("mixture-overlapping-wide", FOR_REPORT, lambda s: _overlapping(s, 3, 20, 1.2, 100, 500)),
    healthy(
        "imbalance-fine-deep",
        FOR_REPORT,
        lambda s: of(
            mlp(24, 48, 48, 5),
            blobs(5, 24, 0, s, distance=7, counts=(400, 400, 200, 100, 60)),
            lambda m: sgd(m, 0.05, 0.9, 1e-3),
            400,
        ),
    ),
    healthy(
        "mixture-parts-adam",
        FOR_REPORT,
        lambda s: of(
            mlp(20, 80, 80, 4, norm="layer"),
            blobs(4, 20, 5000, s, distance=5, parts=4),
            lambda m: adamw(m, 1e-3, 0.01),
            400,
            batch_size=64,
        ),
    ),
    healthy(
        "markov-transformer-adam",
        FOR_REPORT,
        lambda s: of(
            Transformer(8, 20, 24, 3, 1),
            markov(8, 20, 1200, s, branches=4),
            lambda m: adamw(m, 3e-3),
            250,
            batch_size=32,
            num_probe=64,
        ),
    ),
]
