"""Train data fitted, held-out data at chance, decay at work: cut before generalisation, and runs that got there."""

from __future__ import annotations

from torch import nn

from verdict_bank.data import blobs, digits, modular_addition
from verdict_bank.models import mlp
from verdict_bank.setting import (
    FIRED,
    FOR_REPORT,
    FOR_THRESHOLDS,
    Expected,
    Labels,
    Training,
    Truth,
    adamw,
    faulty,
    look_alike,
    of,
)
from verdict_bank.truths import slack


class _TwoLayers(nn.Sequential):
    """Two matrices without biases."""

    def __init__(self, dim: int, width: int, out: int) -> None:
        super().__init__(nn.Linear(dim, width, bias=False), nn.ReLU(), nn.Linear(width, out, bias=False))


def _waiting(truth: Truth) -> Labels:
    """Expect `grokking_possible` from when 99 % of the train data is fitted, if the held-out data still waits."""
    fitted = truth["train_accuracy"] >= 0.99
    if not fitted.any() or truth["test_accuracy"][-1] > 0.3:
        return {}
    first = int(truth.steps[int(fitted.argmax())])
    return {
        "grokking_possible": Expected(FIRED, (max(0, first // 2), first + slack(truth) + round(0.1 * truth.steps[-1])))
    }


def _modular(
    seed: int, modulus: int, share: float, width: int, steps: int, decay: float, lr: float = 3e-3, **more
) -> Training:
    data = modular_addition(modulus, share, seed)
    return of(
        _TwoLayers(2 * modulus, width, modulus),
        data,
        lambda m: adamw(m, lr, decay, betas=(0.9, 0.98)),
        steps,
        batch_size=None,
        num_probe=160,
        dense_every=10,
        **more,
    )


SETTINGS = [
    faulty("waiting-31", FOR_THRESHOLDS, lambda s: _modular(s, 31, 0.4, 200, 500, 1.0, label=_waiting), 0, 1),
    faulty("waiting-41", FOR_REPORT, lambda s: _modular(s, 41, 0.4, 256, 500, 1.0, label=_waiting), 10),
    faulty("waiting-29-narrow", FOR_REPORT, lambda s: _modular(s, 29, 0.4, 128, 500, 0.7, 5e-3, label=_waiting), 10),
    look_alike(
        "grokked-31",
        FOR_THRESHOLDS,  # it waited, and it got there
        lambda s: _modular(s, 31, 0.75, 200, 1600, 1.0),
        quiet="grokking_possible overfitting",
    ),
    look_alike(
        "grokked-37",
        FOR_REPORT,
        lambda s: _modular(s, 37, 0.75, 256, 1600, 1.0),
        10,
        quiet="grokking_possible overfitting",
    ),
    look_alike(
        "learned-at-once",
        FOR_THRESHOLDS,  # decay at work, and nothing to wait for
        lambda s: of(mlp(20, 64, 5), blobs(5, 20, 1500, s, distance=5), lambda m: adamw(m, 2e-3, 0.3), 500),
        quiet="grokking_possible",
    ),
    look_alike(
        "random-labels-no-decay",
        FOR_REPORT,  # fitted and at chance, and nothing that could change it
        lambda s: _random_labels(s, 300, 500),
        10,
        quiet="grokking_possible",
    ),
    look_alike(
        "random-labels-no-decay-small", FOR_THRESHOLDS, lambda s: _random_labels(s, 200, 400), quiet="grokking_possible"
    ),
]


def _random_labels(seed: int, num: int, steps: int) -> Training:
    """Return digits with labels that mean nothing, fitted without decay."""
    return of(mlp(64, 256, 10), digits(num, seed, 0.9), lambda m: adamw(m, 2e-3), steps, batch_size=50, num_probe=num)
