"""Imbalance in which a class is ignored, and imbalance that ends well."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from verdict_bank.data import Split, blobs, digits
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
    sgd,
)
from verdict_bank.truths import slack


def rare_digits(seed: int, counts: Mapping[int, int]) -> Split:
    """Return digits with so many train samples of these classes; the other parts stay as they are."""
    data = digits(1200, seed)
    x, y = data.train
    keep = torch.cat([torch.nonzero(y == c).flatten()[: counts.get(c, 10_000)] for c in range(10)])
    keep = keep[torch.randperm(len(keep), generator=torch.Generator().manual_seed(seed))]
    return Split((x[keep], y[keep]), data.heldout, data.test, data.is_wrong[keep])


def _watched(model: nn.Module, data: Split, optimizer, num_steps: int, rare: tuple[int, ...], **more) -> Training:
    """Return a training whose recall of the rare classes on fresh data is measured; the probe holds all of the rare."""
    x, y = data.test

    def facts(trained: nn.Module) -> Mapping[str, float]:
        right = trained(x).argmax(1) == y
        return {
            "rare": float(np.mean([float(right[y == c].double().mean()) for c in rare])),
            "common": float(right[~torch.isin(y, torch.tensor(rare))].double().mean()),
        }

    is_rare = torch.isin(data.train[1], torch.tensor(rare))
    places = torch.cat([torch.nonzero(is_rare).flatten(), torch.nonzero(~is_rare).flatten()[:160]])
    return of(model, data, optimizer, num_steps, facts=facts, label=_neglected, probe_places=places.tolist(), **more)


def _neglected(truth: Truth) -> Labels:
    """Expect `class_neglect` if rare classes end under 0.35 of the common recall; begun by when that is learned."""
    rare, common, steps = truth["rare"], truth["common"], truth.steps
    if np.median(rare[-5:]) > 0.35 * np.median(common[-5:]):
        return {}
    learned = int(steps[int((common >= 0.9 * common.max()).argmax())])
    return {"class_neglect": Expected(FIRED, (0, learned + slack(truth) + round(0.1 * steps[-1])))}


SETTINGS = [
    faulty(
        "neglect-digits",
        FOR_THRESHOLDS,
        lambda s: _watched(mlp(64, 64, 10), rare_digits(s, {8: 3, 3: 3}), lambda m: sgd(m, 0.1), 500, (3, 8)),
        0,
        1,
    ),
    faulty(
        "neglect-mixture",
        FOR_THRESHOLDS,
        lambda s: _watched(
            mlp(16, 32, 3),
            blobs(3, 16, 0, s, distance=3, counts=(600, 600, 15)),
            lambda m: sgd(m, 0.05, 0.0, 5e-3),
            500,
            (2,),
        ),
    ),
    faulty(
        "neglect-digits-deep",
        FOR_REPORT,
        lambda s: _watched(
            mlp(64, 48, 48, 10), rare_digits(s, {5: 4, 9: 4, 1: 3}), lambda m: sgd(m, 0.05, 0.5), 500, (1, 5, 9)
        ),
        10,
    ),
    faulty(
        "neglect-mixture-tanh",
        FOR_REPORT,
        lambda s: _watched(
            mlp(20, 64, 4, activation=nn.Tanh),
            blobs(4, 20, 0, s, distance=3, counts=(500, 500, 500, 10)),
            lambda m: adamw(m, 1e-3, 0.1),
            400,
            (3,),
        ),
        10,
    ),
    look_alike(
        "imbalance-recovers",
        FOR_THRESHOLDS,  # neglected early, learned in the end
        lambda s: _watched(
            mlp(16, 64, 3),
            blobs(3, 16, 0, s, distance=7, counts=(600, 300, 30)),
            lambda m: sgd(m, 0.05, 0.5),
            600,
            (2,),
        ),
        quiet="class_neglect overfitting",
    ),
    look_alike(
        "imbalance-recovers-deep",
        FOR_REPORT,
        lambda s: _watched(
            mlp(20, 48, 48, 4),
            blobs(4, 20, 0, s, distance=8, counts=(500, 300, 100, 40)),
            lambda m: adamw(m, 1e-3),
            500,
            (3,),
        ),
        10,
        quiet="class_neglect overfitting",
    ),
]
