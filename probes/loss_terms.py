"""By what the mean losses of several batches are averaged, so that a split batch is worth the whole one.

A token loss with padding is a mean over tokens, not over samples. `forward=` can state how many terms its mean
is over. Where it does not, the weights are measured: the gradient of two batches taken together is
g₁₂ = w g₁ + (1 − w) g₂, which gives w, and whether there is any w at all. Counting rules that could explain it are
held against that; what none of them explains is refused, for every number after it would be wrong.

Legend: n samples of a batch, T tokens of a sample; shapes (n,) and (n, T).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trainvitals.probes.bystander import bystander
from trainvitals.probes.gradients import gradients_of
from trainvitals.probes.probe_batch import ProbeBatch, first_samples, joined, targets_of

if TYPE_CHECKING:
    from trainvitals.probes.subject import Subject

Counts = Mapping[str, float]  # counting rule in words -> weight of a batch by that rule

_IGNORED = -100  # torch's and Hugging Face's default
_SAMPLES = "samples"
# Relative error of a gradient that passes for rounding. Kernels may sum a batch of another size in another order:
# 3e-7 seen in float32 on CPU; elsewhere the user may allow TF32, which has three digits.
_ROUNDING = {torch.float64: 1e-7}
_ROUNDING_ON_CPU = 1e-4
_ROUNDING_ELSE = 2e-3
_SAME_SHARE = 1e-3  # rules whose shares differ by less need not be told apart


def weighed(subject: Subject, batch: ProbeBatch, argument: str, call: str) -> ProbeBatch:
    """Return the probe with the number of loss terms of each of its batches. One batch alone needs none.

    Passes run in eval mode, where samples do not influence each other; the number of terms is the same.

    Raises:
        ValueError: if `forward` states terms of some batches only, or a number below 1; if no counting rule
            explains the loss of two batches together; or if several do and they differ.
    """
    if len(batch.chunks) < 2:
        return batch
    with bystander(subject.model, mode="eval", beside=subject.beside):
        stated = _stated(subject, batch, argument, call)
        if stated is not None:
            return replace(batch, num_terms=stated)
        return replace(batch, num_terms=_measured(subject, batch, argument, call))


def _stated(subject: Subject, batch: ProbeBatch, argument: str, call: str) -> tuple[float, ...] | None:
    """Return what `forward` says of each batch: its third element, or one loss a sample."""
    if subject.forward is None:
        return None
    parameters = subject.parameters()
    with torch.no_grad():
        passes = [subject.run(parameters, chunk) for chunk in batch.chunks]
    terms = [found.num_terms for found in passes]
    if all(count is None for count in terms):
        losses = [found.loss.shape for found in passes]
        is_per_sample = losses == [(size,) for size in batch.sizes] and max(batch.sizes) > 1
        return tuple(map(float, batch.sizes)) if is_per_sample else None
    counts = tuple(math.nan if count is None else float(count) for count in terms)
    if not all(0 < count < math.inf for count in counts):
        wrong = next(i for i, count in enumerate(counts) if not 0 < count < math.inf)
        raise ValueError(
            f"expected a positive number of loss terms for every batch, got {terms[wrong]!r} as the third element that "
            f"forward= returns for batch {wrong} of {argument}= in {call}; leave out batches without loss terms"
        )
    return counts


def _measured(subject: Subject, batch: ProbeBatch, argument: str, call: str) -> tuple[float, ...]:
    whole = [_counts(chunk, size, subject.loss) for chunk, size in zip(batch.chunks, batch.sizes, strict=True)]
    rules = [name for name in whole[0] if all(counts.get(name, 0) > 0 for counts in whole)]
    trials = list(_trials(subject, batch))
    if not all(trial.is_finite for trial in trials):  # then no weighted mean is a number either
        return tuple(map(float, batch.sizes))
    for trial in trials:
        if not trial.is_mean:
            raise ValueError(_no_mean(argument, call))
    telling = [trial for trial in trials if trial.tolerance < 0.05]
    errors = {name: max((trial.error(name) for trial in telling), default=0.0) for name in rules}
    allowed = max((trial.tolerance for trial in telling), default=0.0)
    fitting = sorted((name for name in rules if errors[name] <= allowed), key=errors.__getitem__)
    if not fitting:
        worst = max(telling, key=lambda trial: trial.error(_SAMPLES))
        raise ValueError(_unexplained(worst, rules, argument, call))
    best = fitting[0]
    rivals = [name for name in fitting if errors[name] <= 4 * errors[best] + 1e-6]
    different = [name for name in rivals if _difference(whole, best, name) > _SAME_SHARE]
    if different or (not trials and subject.forward is not None):
        raise ValueError(_ambiguous([best, *different], bool(trials), argument, call))
    return tuple(counts[best] for counts in whole)


@dataclass(frozen=True)
class _Trial:
    """Two batches, apart and together."""

    counts: tuple[Counts, Counts]
    share: float  # w of the first, measured
    residual: float  # ‖g₁₂ − w g₁ − (1 − w) g₂‖ over the largest norm
    tolerance: float  # of the share
    rounding: float  # of the residual

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.residual)

    @property
    def is_mean(self) -> bool:
        return self.residual <= self.rounding

    def error(self, rule: str) -> float:
        """Return how far the rule's share of the first batch is from the measured one."""
        first, second = (counts.get(rule, math.nan) for counts in self.counts)
        total = first + second
        return abs(first / total - self.share) if total > 0 else math.inf


def _trials(subject: Subject, batch: ProbeBatch) -> Iterator[_Trial]:
    """Try each batch with the next one, or its own two halves where their shapes do not allow to join them."""
    parameters = subject.parameters()
    halved: set[int] = set()
    for i, j in pairwise(range(len(batch.chunks))):
        first, second = ((batch.chunks[k], batch.sizes[k]) for k in (i, j))
        try:
            both = joined(batch.chunks[i : j + 1], batch.sizes[i : j + 1])
            yield _trial(subject, parameters, first, second, both)
        except Exception:  # shapes differ, memory is short, the model takes batches of one size only
            for k in {i, j} - halved:
                halved.add(k)
                with suppress(Exception):
                    yield _trial(subject, parameters, *_halves(batch.chunks[k], batch.sizes[k]), batch.chunks[k])


def _halves(chunk: Any, size: int) -> tuple[tuple[Any, int], tuple[Any, int]]:
    half = size // 2
    if half == 0:
        raise ValueError("one sample has no halves")
    return (first_samples(chunk, half, size), half), (first_samples(chunk, half - size, size), size - half)


def _trial(
    subject: Subject, parameters: Mapping[str, Tensor], first: tuple[Any, int], second: tuple[Any, int], both: Any
) -> _Trial:
    g1, g2, g12 = (_gradient(subject, parameters, chunk) for chunk in (first[0], second[0], both))
    apart = [a - b for a, b in zip(g1, g2, strict=True)]
    spread = _dot(apart, apart)
    share = _dot([c - b for c, b in zip(g12, g2, strict=True)], apart) / spread if spread else 0.5
    rest = [c - b - share * d for c, b, d in zip(g12, g2, apart, strict=True)]
    scale = math.sqrt(max(_dot(g, g) for g in (g1, g2, g12)))
    rounding = max(_rounding(g) for g in g1)
    counts = tuple(_counts(chunk, size, subject.loss) for chunk, size in (first, second))
    return _Trial(
        (counts[0], counts[1]), share,
        math.sqrt(_dot(rest, rest)) / scale if scale else 0.0,
        rounding * scale / math.sqrt(spread) if spread else math.inf,
        rounding,
    )  # fmt: skip


def _gradient(subject: Subject, parameters: Mapping[str, Tensor], chunk: Any) -> list[Tensor]:
    values = {name: p.detach().requires_grad_() for name, p in parameters.items()}
    with torch.enable_grad():
        gradients = gradients_of(subject.loss_and_outputs(values, chunk)[0], list(values.values()))
    return [torch.view_as_real(g) if g.is_complex() else g for g in gradients]


def _rounding(gradient: Tensor) -> float:
    default = _ROUNDING_ON_CPU if gradient.device.type == "cpu" else _ROUNDING_ELSE
    return _ROUNDING.get(gradient.dtype, default)


def _dot(left: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    return sum(float((a.double() * b.double()).sum()) for a, b in zip(left, right, strict=True))


def _counts(chunk: Any, size: int, loss: Callable[..., Any] | None) -> dict[str, float]:
    """Return a batch's weight by every rule that applies to it."""
    found: dict[str, float] = {_SAMPLES: size}
    targets = targets_of(chunk)
    if targets is None and isinstance(chunk, Mapping) and isinstance(chunk.get("input_ids"), Tensor):
        targets = chunk["input_ids"]
    if targets is not None:
        found["target elements"] = targets.numel()
        if targets.dtype in (torch.int64, torch.int32, torch.uint8):
            found |= _counts_of_labels(targets, loss)
    mask = chunk.get("attention_mask") if isinstance(chunk, Mapping) else None
    if isinstance(mask, Tensor) and mask.ndim == 2:
        found |= {"tokens attended to": float(mask.sum()), "tokens attended to, shifted": float(mask[:, 1:].sum())}
    return found


def _counts_of_labels(labels: Tensor, loss: Callable[..., Any] | None) -> dict[str, float]:
    """Count labels that enter the loss, and with `[:, 1:]` those that a causal model predicts."""
    ignored, weight = _option(loss, "ignore_index"), _option(loss, "weight")
    is_counted = labels != (ignored if isinstance(ignored, int) else _IGNORED)
    found = {"labels": float(is_counted.sum())}
    if labels.ndim > 1:
        found["labels, shifted"] = float(is_counted[..., 1:].sum())
    if isinstance(weight, Tensor) and weight.ndim == 1:
        chosen = labels[is_counted].to(weight.device)
        if len(chosen) == 0 or int(chosen.max()) < len(weight):
            found["class weights of the labels"] = float(weight[chosen.long()].double().sum())
    return found


def _option(loss: Callable[..., Any] | None, name: str) -> Any:
    """Return an option of a loss that is a module or a `functools.partial`."""
    return loss.keywords.get(name) if isinstance(loss, functools.partial) else getattr(loss, name, None)


def _difference(whole: Sequence[Counts], one: str, other: str) -> float:
    totals = {name: sum(counts[name] for counts in whole) for name in (one, other)}
    return max(abs(counts[one] / totals[one] - counts[other] / totals[other]) for counts in whole)


_WHAT_TO_TRY = (
    "return the number of loss terms of the batch from forward= as a third element, "
    "(outputs, mean loss, number of terms), or pass one batch"
)


def _no_mean(argument: str, call: str) -> str:
    return (
        f"expected a loss that is a mean over its terms, got in {argument}= batches that give together another loss "
        f"than any weighted mean of theirs in {call}; is it a sum, does it compare samples with each other, does the "
        f"model normalise over the batch or draw random numbers in eval mode? Use a mean, {_WHAT_TO_TRY}"
    )


def _unexplained(trial: _Trial, rules: Sequence[str], argument: str, call: str) -> str:
    first, second = (counts[_SAMPLES] for counts in trial.counts)
    return (
        f"expected the batches of {argument}= to weigh as many loss terms as can be counted ({', '.join(rules)}), got "
        f"a weight of {trial.share:.4g} for {first:.0f} of {first + second:.0f} samples in {call}; does the loss mask "
        f"padding, or weigh classes or samples? Then {_WHAT_TO_TRY}"
    )


def _ambiguous(rules: Sequence[str], is_tried: bool, argument: str, call: str) -> str:
    words = " and ".join(rules)
    found = f"a loss that {words} explain alike" if is_tried else "batches that cannot be joined or halved"
    return (
        f"expected to see by what the batches of {argument}= are to be weighted, got {found} in {call}; {_WHAT_TO_TRY}"
    )
