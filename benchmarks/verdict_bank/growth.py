"""Weights that grow out of proportion, attention logits that explode, softmax that rounds to exactly 1."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from verdict_bank.data import blobs, copy_task, digits, modular_addition
from verdict_bank.models import Attention, Transformer, mlp, scaled
from verdict_bank.setting import (
    FIRED,
    FOR_REPORT,
    FOR_THRESHOLDS,
    Expected,
    Labels,
    Training,
    Truth,
    adamw,
    cosine,
    faulty,
    look_alike,
    of,
    sgd,
)
from verdict_bank.truths import after


def growth_beyond_others(place: int) -> Callable[[nn.Module], Mapping[str, float]]:
    """Return a measure: growth of one weight matrix over the median growth of all."""
    start: list[float] = []

    def measure(model: nn.Module) -> Mapping[str, float]:
        norms = [float(p.detach().norm()) for p in model.parameters() if p.ndim > 1]
        start.extend(norms if not start else [])
        growth = np.array(norms) / np.array(start)
        return {"outgrowth": growth[place] / float(np.median(growth))}

    return measure


def _one_layer_runs(
    model: nn.Module, data, base: float, place: int, at: int, by: float, num_steps: int, **more
) -> Training:
    """Return a training in which one weight matrix steps `by` times wider from a step on and outgrows the rest."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p is not matrices[place]]
    optimizer = torch.optim.SGD(
        [{"params": others, "lr": base}, {"params": [matrices[place]], "lr": base}], momentum=0.9
    )

    def widen(now: int, made: Training) -> None:
        if now == at:
            made.optimizer.param_groups[1]["lr"] = base * by

    return of(
        model,
        data,
        lambda m: optimizer,
        num_steps,
        before_step=widen,
        facts=growth_beyond_others(place),
        label=after("weight_norm_growth", "outgrowth", 1.2, 3.0),
        **more,
    )


def largest_logit(x: Tensor) -> Callable[[nn.Module], Mapping[str, float]]:
    """Return a measure: the largest |q·k|/√d over layers and samples."""

    def measure(model: nn.Module) -> Mapping[str, float]:
        found: list[float] = []

        def look(module: Attention, args: tuple[Tensor], out: Tensor) -> None:
            n, t, d = args[0].shape
            size = d // module.heads
            q, k, _ = module.qkv(args[0]).view(n, t, 3, module.heads, size).permute(2, 0, 3, 1, 4)
            found.append(
                float((module.q_norm(q) @ module.k_norm(k).transpose(-1, -2)).detach().abs().max()) / size**0.5
            )

        handles = [m.register_forward_hook(look) for m in model.modules() if isinstance(m, Attention)]
        model(x)
        for handle in handles:
            handle.remove()
        return {"largest_logit": max(found)}

    return measure


def _copying(
    seed: int,
    symbols: int,
    length: int,
    width: int,
    heads: int,
    lr: float,
    qk_norm: bool,
    steps: int,
    clip: float | None = None,
) -> Training:
    data = copy_task(symbols, length, 1500, seed)
    model = Transformer(symbols + 1, 2 * length, width, heads, 2, qk_norm)
    return of(
        model,
        data,
        lambda m: adamw(m, lr),
        steps,
        batch_size=32,
        num_probe=48,
        clip=clip,
        lr_factor=cosine(steps, 40),
        facts=largest_logit(data.train[0][:32]),
        dense_every=4,
        probes=("default", "attention"),
        without=frozenset({"hessian.top"}),
        every={"stability": steps // 3},
        label=after("attention_logit_growth", "largest_logit", 50, 1000),
    )


def exact_zeros(x: Tensor, y: Tensor) -> Callable[[nn.Module], Mapping[str, float]]:
    """Return a measure: share of samples whose float32 softmax gives the label exactly 1."""

    def measure(model: nn.Module) -> Mapping[str, float]:
        p = model(x).softmax(1).gather(1, y.unsqueeze(1))
        return {"zeros": float((p == 1).double().mean())}

    return measure


def _rounding(model: nn.Module, data, lr: float, steps: int, **more) -> Training:
    """Return a training with Adam and an ε next to nothing: logits grow until float32 rounds softmax to 1."""
    label = after("softmax_collapse", "zeros", 0.01, 0.2)
    return of(
        model,
        data,
        lambda m: adamw(m, lr, eps=1e-30),
        steps,
        batch_size=None,
        label=label,
        num_probe=200,
        facts=exact_zeros(*data.train),
        **more,
    )


def _all_grow(truth: Truth) -> Labels:
    """Expect `weight_norm_growth` from the start: nothing holds the weights."""
    return {"weight_norm_growth": Expected(FIRED, (0, round(0.5 * truth.steps[-1])))}


SETTINGS = [
    faulty(
        "growth-one-layer",
        FOR_THRESHOLDS,
        lambda s: _one_layer_runs(mlp(64, 96, 96, 96, 10, norm="batch"), digits(900, s), 0.02, 1, 250, 60.0, 600),
        0,
        1,
    ),
    faulty(
        "growth-one-layer-mixture",
        FOR_REPORT,
        lambda s: _one_layer_runs(
            mlp(20, 64, 64, 64, 64, 5, norm="batch"), blobs(5, 20, 1500, s, distance=3), 0.02, 2, 200, 80.0, 600
        ),
        10,
        11,
    ),
    look_alike(
        "small-start-grows",
        FOR_THRESHOLDS,  # every layer grows from a small start, and stops
        lambda s: of(scaled(mlp(64, 96, 96, 10), 0.4), digits(1000, s), lambda m: sgd(m, 0.05, 0.9, 1e-3), 700),
        quiet="weight_norm_growth",
    ),
    look_alike(
        "small-start-grows-norm",
        FOR_REPORT,
        lambda s: of(
            scaled(mlp(20, 80, 80, 4, norm="layer"), 0.3),
            blobs(4, 20, 2000, s, distance=4),
            lambda m: sgd(m, 0.03, 0.9, 1e-3),
            600,
        ),
        10,
        quiet="weight_norm_growth",
    ),
    faulty("logits-16", FOR_THRESHOLDS, lambda s: _copying(s, 16, 10, 32, 1, 0.1, False, 250), 0),
    faulty("logits-24-heads", FOR_REPORT, lambda s: _copying(s, 24, 10, 48, 4, 0.08, False, 220, clip=1.0), 10),
    look_alike(
        "logits-16-normed",
        FOR_THRESHOLDS,
        lambda s: _copying(s, 16, 10, 32, 1, 0.02, True, 250),
        quiet="attention_logit_growth",
    ),
    look_alike(
        "logits-24-small-rate",
        FOR_REPORT,
        lambda s: _copying(s, 24, 10, 48, 4, 0.002, False, 220),
        10,
        quiet="attention_logit_growth",
    ),
    faulty(
        "rounding-modular",
        FOR_THRESHOLDS,
        lambda s: _rounding(mlp(46, 128, 128, 23), modular_addition(23, 0.5, s), 1e-2, 900),
    ),
    faulty(
        "rounding-mixture",
        FOR_THRESHOLDS,
        lambda s: _rounding(mlp(20, 64, 4), blobs(4, 20, 300, s, distance=8), 1e-2, 900),
    ),
    faulty("rounding-digits", FOR_REPORT, lambda s: _rounding(mlp(64, 64, 64, 10), digits(300, s), 1e-2, 900), 10),
    faulty(
        "rounding-modular-wide",
        FOR_REPORT,
        lambda s: _rounding(mlp(38, 200, 19), modular_addition(19, 0.6, s), 2e-2, 1000),
        10,
    ),
    look_alike(
        "fitted-not-rounded",
        FOR_THRESHOLDS,  # the loss is tiny, and not zero
        lambda s: of(
            mlp(20, 64, 4), blobs(4, 20, 300, s, distance=8), lambda m: sgd(m, 0.1, 0.9, 1e-4), 800, batch_size=None
        ),
        quiet="softmax_collapse",
    ),
    look_alike(
        "fitted-not-rounded-digits",
        FOR_REPORT,
        lambda s: of(mlp(64, 96, 10), digits(400, s), lambda m: sgd(m, 0.2, 0.9, 5e-4), 700, batch_size=100),
        10,
        quiet="softmax_collapse",
    ),
]
