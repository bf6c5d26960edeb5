"""Overfitting: too few data, wrong labels, noise in targets, in several architectures; when it began is measured.

The onset is the turn of a dense held-out loss on data that no probe holds.
"""

from __future__ import annotations

from torch import nn
from torch.nn.functional import mse_loss

from verdict_bank.data import blobs, digits, markov, regression
from verdict_bank.models import RowTransformer, Transformer, cnn, mlp
from verdict_bank.setting import FOR_REPORT, FOR_THRESHOLDS, adamw, faulty, look_alike, of, sgd
from verdict_bank.truths import overfits

SETTINGS = [
    faulty(
        "over-regression",
        FOR_THRESHOLDS,
        lambda s: of(
            mlp(6, 128, 128, 1),
            regression(80, 6, s, noise=0.5),
            lambda m: adamw(m, 2e-3),
            700,
            loss=mse_loss,
            batch_size=20,
            num_probe=80,
            label=overfits,
        ),
        0,
        1,
    ),
    faulty(
        "over-mixture",
        FOR_THRESHOLDS,
        lambda s: of(
            mlp(30, 128, 128, 5),
            blobs(5, 30, 300, s, distance=3, parts=3),
            lambda m: sgd(m, 0.03, 0.9),
            900,
            batch_size=50,
            label=overfits,
        ),
        0,
        1,
    ),
    faulty(
        "over-markov",
        FOR_THRESHOLDS,
        lambda s: of(
            Transformer(16, 12, 48, 2, 2),
            markov(16, 12, 60, s),
            lambda m: adamw(m, 2e-3),
            350,
            batch_size=20,
            num_probe=60,
            label=overfits,
        ),
    ),
    faulty(
        "over-mixture-logs",
        FOR_THRESHOLDS,  # only what a user logs
        lambda s: of(
            mlp(20, 100, 4),
            blobs(4, 20, 200, s, distance=2.5, wrong_share=0.1),
            lambda m: adamw(m, 3e-3),
            800,
            batch_size=40,
            label=overfits,
            logs_only=True,
        ),
        0,
        1,
    ),
    faulty(
        "over-digits-few-noisy",
        FOR_THRESHOLDS,
        lambda s: of(
            cnn(),
            digits(200, s, 0.25, as_images=True),
            lambda m: adamw(m, 2e-3),
            300,
            batch_size=32,
            num_probe=200,
            label=overfits,
        ),
    ),
    faulty(
        "over-regression-tanh",
        FOR_REPORT,
        lambda s: of(
            mlp(10, 200, 1, activation=nn.Tanh),
            regression(120, 10, s, noise=0.4),
            lambda m: adamw(m, 5e-3),
            900,
            loss=mse_loss,
            batch_size=30,
            num_probe=120,
            label=overfits,
        ),
        10,
        11,
    ),
    faulty(
        "over-mixture-deep",
        FOR_REPORT,
        lambda s: of(
            mlp(24, 96, 96, 96, 6, activation=nn.GELU),
            blobs(6, 24, 240, s, distance=2.5, parts=2),
            lambda m: adamw(m, 1e-3),
            700,
            batch_size=40,
            label=overfits,
        ),
        10,
        11,
    ),
    faulty(
        "over-markov-small",
        FOR_REPORT,
        lambda s: of(
            Transformer(10, 16, 64, 4, 1),
            markov(10, 16, 40, s, branches=4),
            lambda m: adamw(m, 3e-3),
            350,
            batch_size=20,
            num_probe=40,
            label=overfits,
        ),
        10,
    ),
    faulty(
        "over-row-transformer",
        FOR_REPORT,
        lambda s: of(
            RowTransformer(32, 2, 1),
            digits(250, s, 0.2),
            lambda m: adamw(m, 2e-3),
            400,
            batch_size=32,
            num_probe=160,
            label=overfits,
        ),
        10,
    ),
    faulty(
        "over-digits-logs",
        FOR_REPORT,
        lambda s: of(
            mlp(64, 150, 10),
            digits(300, s, 0.2),
            lambda m: sgd(m, 0.05, 0.9),
            700,
            batch_size=50,
            label=overfits,
            logs_only=True,
        ),
        10,
        11,
    ),
    look_alike(
        "gap-that-stays",
        FOR_THRESHOLDS,  # a large gap from early on, the held-out loss flat
        lambda s: of(
            mlp(64, 64, 10), digits(60, s), lambda m: sgd(m, 0.05, 0.9, 2e-2), 600, batch_size=20, num_probe=60
        ),
        quiet="overfitting label_noise",
    ),
    look_alike(
        "shifted-heldout",
        FOR_REPORT,  # held-out data is harder from the start
        lambda s: _harder(
            of(mlp(20, 64, 4), blobs(4, 20, 3000, s, distance=4), lambda m: sgd(m, 0.02, 0.9, 5e-3), 500)
        ),
        10,
        quiet="overfitting label_noise",
    ),
    look_alike(
        "gap-that-stays-logs",
        FOR_REPORT,
        lambda s: of(
            mlp(64, 100, 10), digits(100, s), lambda m: sgd(m, 0.05, 0.9, 1e-2), 600, batch_size=25, logs_only=True
        ),
        10,
        quiet="overfitting",
    ),
]


def _harder(made):
    """Return the training with its held-out inputs shrunk to a half: harder, and no sign of memory."""
    made.heldout = (0.5 * made.heldout[0], made.heldout[1])
    made.test = (0.5 * made.test[0], made.test[1])
    return made
