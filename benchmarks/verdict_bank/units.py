"""Units that die at a known step, and networks that stop learning new tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from verdict_bank.data import Split, blobs, digits, generator
from verdict_bank.models import cnn, mlp
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
from verdict_bank.truths import after


def dead_share(x: Tensor) -> Callable[[nn.Module], Mapping[str, float]]:
    """Return a measure of the share of ReLU units (channels) that answer to no input."""

    def measure(model: nn.Module) -> Mapping[str, float]:
        dead: list[Tensor] = []

        def look(module: nn.Module, args: object, out: Tensor) -> None:
            dead.append((out.flatten(2).amax(2) if out.ndim > 2 else out).amax(0) <= 0)

        handles = [m.register_forward_hook(look) for m in model.modules() if isinstance(m, nn.ReLU)]
        model(x)
        for handle in handles:
            handle.remove()
        return {"dead": float(torch.cat(dead).double().mean())}

    return measure


def _pushed(step: int, share: float, by: float) -> Callable[[int, Training], None]:
    """Return a change at a step: the biases of a share of the units of each hidden layer fall by `by`."""

    def push(now: int, made: Training) -> None:
        if now == step:
            hidden = [m for m in made.model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))][:-1]
            for layer in hidden:
                with torch.no_grad():
                    layer.bias[: round(share * len(layer.bias))] -= by

    return push


def _dying(model: nn.Module, data: Split, optimizer, num_steps: int, **more) -> Training:
    """Return a training labelled by its own dead share: from 0.05 above its start to 0.3 above it."""

    def label(truth: Truth) -> Labels:
        start = truth["dead"][0]
        return after("dead_units", "dead", start + 0.05, start + 0.25)(truth)

    return of(model, data, optimizer, num_steps, facts=dead_share(data.train[0][:256]), label=label, **more)


def _tasks(
    seed: int, model: nn.Module, optimizer, num: int, classes: int, per_task: int, tasks: int, draw: str, **more
) -> Training:
    """Return task after task on the same digits: new random labels, or pixels in a new order."""
    data, g = digits(num, seed), generator(seed + 50)
    x, y = data.train

    def fresh() -> tuple[Tensor, Tensor]:
        if draw == "labels":
            return x, torch.randint(0, classes, (num,), generator=g)
        return x[:, torch.randperm(64, generator=g)], y

    first = fresh()

    def switch(now: int, made: Training) -> None:
        if now and now % per_task == 0:
            new = fresh()
            made.train[0].copy_(new[0])  # in place: the probe sees the task too
            made.train[1].copy_(new[1])

    part = (first[0].clone(), first[1].clone())
    return Training(
        model,
        optimizer(model),
        part,
        part,
        per_task * tasks,
        num_probe=num,
        before_step=switch,
        batch_size=40,
        dense_every=per_task,
        label=lambda t: _stiffens(t, per_task),
        **more,
    )


def _stiffens(truth: Truth, per_task: int) -> Labels:
    """Expect `plasticity_loss` from the best task to the second in a row that ends below three quarters of it."""
    ends = truth["train_accuracy"][1:]
    best = int(ends.argmax())
    low = ends < 0.75 * ends[best]
    if not low[-3:].all():
        return {}
    fall = next(i for i in range(best, len(ends) - 1) if low[i] and low[i + 1])
    return {"plasticity_loss": Expected(FIRED, (best * per_task, (fall + 2) * per_task))}


SETTINGS = [
    faulty(
        "dead-pushed",
        FOR_THRESHOLDS,
        lambda s: _dying(
            mlp(64, 128, 64, 10), digits(1000, s), lambda m: sgd(m, 0.05, 0.9), 500, before_step=_pushed(250, 0.7, 8.0)
        ),
        0,
        1,
    ),
    faulty(
        "dead-large-rate",
        FOR_THRESHOLDS,
        lambda s: _dying(
            mlp(20, 100, 100, 4),
            blobs(4, 20, 1500, s, distance=3),
            lambda m: sgd(m, 0.03, 0.9),
            400,
            lr_factor=lambda t: 40.0 if 150 <= t < 158 else 1.0,
        ),
    ),
    faulty(
        "dead-pushed-cnn",
        FOR_REPORT,
        lambda s: _dying(
            cnn((8, 12), 40, norm=False),
            digits(900, s, as_images=True),
            lambda m: adamw(m, 1e-3),
            300,
            before_step=_pushed(160, 0.8, 10.0),
        ),
        10,
    ),
    faulty(
        "dead-large-rate-deep",
        FOR_REPORT,
        lambda s: _dying(
            mlp(64, 80, 80, 80, 10),
            digits(800, s),
            lambda m: adamw(m, 1e-3),
            500,
            lr_factor=lambda t: 300.0 if 200 <= t < 206 else 1.0,
        ),
        10,
    ),
    faulty(
        "stiff-labels",
        FOR_THRESHOLDS,
        lambda s: _tasks(s, mlp(64, 80, 80, 10), lambda m: adamw(m, 3e-3), 300, 10, 180, 26, "labels"),
        0,
    ),
    faulty(
        "stiff-labels-deep",
        FOR_REPORT,
        lambda s: _tasks(s, mlp(64, 64, 64, 64, 8), lambda m: adamw(m, 4e-3), 240, 8, 160, 26, "labels"),
        10,
    ),
    look_alike(
        "few-dead",
        FOR_THRESHOLDS,  # a tenth of the units die and nothing is lost
        lambda s: of(
            mlp(64, 128, 64, 10),
            digits(1000, s),
            lambda m: sgd(m, 0.05, 0.9, 5e-4),
            500,
            before_step=_pushed(250, 0.08, 8.0),
        ),
        quiet="dead_units plasticity_loss",
    ),
    look_alike(
        "tasks-in-turn",
        FOR_THRESHOLDS,  # every task is learned as well as the first
        lambda s: _tasks(
            s, mlp(64, 100, 10, norm="layer"), lambda m: sgd(m, 0.05, 0.0, 1e-3), 300, 10, 150, 12, "pixels"
        ),
        quiet="plasticity_loss dead_units overfitting",
    ),
    look_alike(
        "few-dead-cnn",
        FOR_REPORT,
        lambda s: of(
            cnn((10, 20), 40, norm=True),
            digits(900, s, as_images=True),
            lambda m: sgd(m, 0.05, 0.9, 5e-4),
            250,
            before_step=_pushed(120, 0.1, 10.0),
        ),
        10,
        quiet="dead_units plasticity_loss",
    ),
    look_alike(
        "tasks-in-turn-deep",
        FOR_REPORT,
        lambda s: _tasks(
            s, mlp(64, 80, 80, 10, norm="layer"), lambda m: sgd(m, 0.03, 0.5, 1e-3), 240, 10, 160, 12, "pixels"
        ),
        10,
        quiet="plasticity_loss dead_units overfitting",
    ),
]
