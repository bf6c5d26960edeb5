"""Underfitting: decay that holds the weights down, a model too small, a shape that cannot say it."""

from __future__ import annotations

from torch import nn
from torch.nn.functional import mse_loss

from verdict_bank.data import blobs, digits, regression
from verdict_bank.models import cnn, mlp
from verdict_bank.setting import FIRED, FOR_REPORT, FOR_THRESHOLDS, Expected, Labels, Truth, adamw, faulty, of, sgd
from verdict_bank.truths import slack, smooth


def plateau(truth: Truth) -> Labels:
    """Expect `underfitting` from between the start and the step at which 97 % of the fall of the train loss is done."""
    loss = smooth(truth["train_loss"], 9)
    end = loss[-5:].mean()
    done = loss <= end + 0.03 * max(loss[0] - end, 0.02 * abs(end))
    last = int(truth.steps[int(done.argmax())]) + slack(truth)
    return {"underfitting": Expected(FIRED, (0, last + round(0.1 * truth.steps[-1])))}


SETTINGS = [
    faulty(
        "under-decay",
        FOR_THRESHOLDS,
        lambda s: of(mlp(64, 128, 128, 10), digits(800, s), lambda m: sgd(m, 0.05, 0.9, 6e-2), 500, label=plateau),
        0,
        1,
    ),
    faulty(
        "under-two-units",
        FOR_THRESHOLDS,
        lambda s: of(mlp(64, 2, 10), digits(1000, s), lambda m: adamw(m, 5e-3), 800, label=plateau),
    ),
    faulty(
        "under-linear-parts",
        FOR_THRESHOLDS,  # a linear model on classes of many parts
        lambda s: of(
            mlp(10, 4),
            blobs(4, 10, 2000, s, distance=4, parts=6),
            lambda m: sgd(m, 0.1, 0.9),
            500,
            probes=("default", "probe.knn"),
            label=plateau,
        ),
    ),
    faulty(
        "under-decay-cnn",
        FOR_REPORT,
        lambda s: of(
            cnn((8, 8), 24, norm=False),
            digits(900, s, as_images=True),
            lambda m: sgd(m, 0.05, 0.9, 5e-2),
            300,
            label=plateau,
        ),
        10,
        11,
    ),
    faulty(
        "under-narrow-tanh",
        FOR_REPORT,
        lambda s: of(
            mlp(64, 2, 2, 10, activation=nn.Tanh), digits(1100, s), lambda m: adamw(m, 1e-2), 800, label=plateau
        ),
        10,
    ),
    faulty(
        "under-linear-product",
        FOR_REPORT,  # a linear model of a product: no better than the mean
        lambda s: of(
            mlp(6, 1), regression(2000, 6, s, kind="product"), lambda m: sgd(m, 0.05), 400, loss=mse_loss, label=plateau
        ),
        10,
    ),
]
