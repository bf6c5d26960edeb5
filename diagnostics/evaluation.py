"""Loss and outputs of a model on one probe batch, and which output belongs to which label.

A classifier of samples has one labelled case a sample. A classifier of tokens (a language model) or of pixels has one
a token with a target; torch's -100 marks those without. Language models are trained to say the *next* token, and some
are given targets that are shifted already, some (Hugging Face's) shift them inside. Which it is cannot be seen from
shapes: it is taken from the loss, which is the mean cross-entropy of one of the two pairings.

Legend: N samples, T tokens (or pixels) of a sample, C classes, R labelled cases.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from trainvitals.diagnostics.missing import Missing

IGNORED = -100  # the target of a token that has none: torch's and Hugging Face's default
_SAME_LOSS = 1e-3  # relative: what the loss may differ from the cross-entropy of a pairing
_MAX_CASES = 1024  # tokens used where a number needs all their outputs or features at once
_MAX_ENTRIES = 2**25  # of their outputs: 256 MiB in float64
_CHUNK_ENTRIES = 2**22  # of outputs looked at at a time


@dataclass(frozen=True)
class Labelled:
    """Labelled cases of a probe: its samples, or tokens of them. Of many tokens, some drawn once by a fixed seed."""

    outputs: Tensor  # (R, C)
    labels: Tensor  # (R,) in 0..C-1
    samples: Tensor  # (R,) the sample that each belongs to
    grid: tuple[int, ...]  # (N,) or (N, T...): what the cases were taken from
    places: Tensor  # (R,) in the flattened grid

    @property
    def num_classes(self) -> int:
        """The number of classes C."""
        return self.outputs.shape[1]

    @property
    def is_per_token(self) -> bool:
        """Whether a sample can have several cases."""
        return len(self.grid) > 1

    def mean_error(self, values: Tensor) -> float | None:
        """Return the standard error of the mean of one number a case, (R,) (see `clustered_error`)."""
        return clustered_error(values, self.samples)


@dataclass(frozen=True)
class _Pairing:
    """Which output is held against which target."""

    scores: Tensor  # (N, T..., C) or (N, C)
    targets: Tensor  # (N, T...) or (N,), IGNORED where there is none


@dataclass(frozen=True)
class Evaluation:
    """Loss and outputs of the model on one probe batch, without a graph."""

    loss: float  # mean over samples, or over loss terms
    outputs: Tensor  # (N, ...)
    targets: Tensor | None  # (N, ...)
    num_samples: int
    mask: Tensor | None = None  # (N, T) True where a token is no padding, where the batch says so

    def labels(self) -> tuple[Tensor, int]:
        """Return class labels (N,) and the number of classes C, of a classifier of whole samples.

        Raises:
            Missing: if the outputs are not (N, C) with C >= 2 or the targets are not whole numbers below C.
        """
        outputs, targets = self.outputs, self.targets
        if targets is None:
            raise Missing("the probe batch has no targets that TrainVitals can find")
        if outputs.ndim != 2 or outputs.shape[1] < 2:
            raise Missing(f"not a classifier: outputs have shape {tuple(outputs.shape)}, expected (N, C) with C >= 2")
        if targets.ndim != 1 or targets.is_floating_point() or targets.is_complex():
            raise Missing(
                f"targets are not class labels: {targets.dtype} of shape {tuple(targets.shape)}, expected integers (N,)"
            )
        if len(targets) != len(outputs):
            raise Missing(f"{len(outputs)} outputs for {len(targets)} targets: batches differ in shape")
        num_classes = outputs.shape[1]
        if int(targets.min()) < 0 or int(targets.max()) >= num_classes:
            raise Missing(f"targets lie outside 0..{num_classes - 1}")
        return targets.long(), num_classes

    @cached_property
    def labelled(self) -> Labelled:
        """The labelled cases, of samples or of tokens.

        Of more than 1,024 tokens (fewer for many classes), that many are drawn once by a fixed seed.

        Raises:
            Missing: as `labels`; for tokens also if the loss is the mean cross-entropy of no pairing of outputs and
                targets, or no token has a target.
        """
        scores, targets = self._pairing.scores, self._pairing.targets
        grid = tuple(targets.shape)
        places = (targets.flatten() != IGNORED).nonzero().flatten() if len(grid) > 1 else torch.arange(len(targets))
        if len(grid) > 1:
            places = drawn(places, max(64, min(_MAX_CASES, _MAX_ENTRIES // scores.shape[-1])))
        places = places.to(scores.device)
        outputs = scores.flatten(0, -2)[places] if len(grid) > 1 else scores
        per_sample = math.prod(grid[1:])
        return Labelled(outputs, targets.flatten()[places], places // per_sample, grid, places)

    def accuracy(self) -> float:
        """Return the share of samples, or of tokens with a target, whose largest output is their label.

        Raises:
            Missing: as `labelled`.
        """
        is_right, _ = self.rights()
        return is_right.double().mean().item()

    def rights(self) -> tuple[Tensor, Tensor]:
        """Return whether each case is classified right, (R,), and its sample, (R,): of all tokens with a target.

        Raises:
            Missing: as `labelled`.
        """
        scores, targets = self._pairing.scores, self._pairing.targets
        counts = targets != IGNORED
        samples = torch.arange(len(targets), device=targets.device)
        samples = samples.view(-1, *(1,) * (targets.ndim - 1)).expand(targets.shape)
        return (scores.argmax(-1) == targets)[counts], samples[counts]

    @cached_property
    def _pairing(self) -> _Pairing:
        if self.outputs.ndim < 3:
            targets, _ = self.labels()
            return _Pairing(self.outputs, targets.to(self.outputs.device))
        return _pairing_of(self)


def clustered_error(values: Tensor, samples: Tensor) -> float | None:
    """Return the standard error of the mean of values (R,), for new samples; None for one sample, NaN or Inf.

    Values of one sample are no independent draws: with G samples and e_g their sums of deviations from the mean it is
    √(G/(G−1) Σ_g e_g²)/R, the linearised error of a ratio of sums over samples (Cochran 1977, Sampling Techniques,
    section 9A.2). For one value a sample it is the usual s/√N.

    Args:
        values: (R,).
        samples: (R,) the sample that each belongs to, ≥ 0.

    >>> round(clustered_error(torch.tensor([0.0, 1.0]), torch.tensor([0, 1])), 6)  # s/√2 with s² = 1/2
    0.5
    """
    num = len(samples.unique())
    if num < 2 or not values.isfinite().all():
        return None
    sums = torch.zeros(int(samples.max()) + 1, dtype=torch.float64, device=values.device)
    sums.index_add_(0, samples, values.double() - values.double().mean())
    return math.sqrt(num / (num - 1) * float(sums.square().sum())) / len(values)


def drawn(places: Tensor, most: int) -> Tensor:
    """Return all places (R,), or `most` of them, drawn by a fixed seed, in order.

    >>> drawn(torch.arange(10), 3).shape, drawn(torch.arange(2), 3).tolist()
    (torch.Size([3]), [0, 1])
    """
    if len(places) <= most:
        return places
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(0))[:most]
    return places[order.sort().values.to(places.device)]


def _pairing_of(evaluation: Evaluation) -> _Pairing:
    outputs, targets = evaluation.outputs, evaluation.targets
    candidates = list(_pairings(outputs, targets))
    _check_range(candidates[0])
    if len(candidates) == 1:  # nothing to choose: one token, or classes in front as torch's cross-entropy has them
        return candidates[0]
    tried = []
    for scores, pairings in _by_scores(candidates):
        found = cross_entropies(scores, [pairing.targets for pairing in pairings])
        for pairing, means in zip(pairings, found, strict=True):
            if any(math.isclose(evaluation.loss, mean, rel_tol=_SAME_LOSS, abs_tol=1e-9) for mean in means):
                return pairing
            tried.append(f"{means[0]:.6g}")
    raise Missing(
        f"which output belongs to which target is not known: the loss, {evaluation.loss:.6g}, is not the mean "
        f"cross-entropy of tokens with their own targets or the next ones ({', '.join(tried)}); "
        f"mark tokens without a loss with {IGNORED}"
    )


def _by_scores(candidates: Sequence[_Pairing]) -> Iterator[tuple[Tensor, list[_Pairing]]]:
    """Yield scores with the pairings that share them, in order."""
    for scores in dict.fromkeys(id(pairing.scores) for pairing in candidates):
        sharing = [pairing for pairing in candidates if id(pairing.scores) == scores]
        yield sharing[0].scores, sharing


def _pairings(outputs: Tensor, targets: Tensor | None) -> Iterator[_Pairing]:
    """Yield the pairings that the shapes allow, likelier ones first."""
    if targets is None:
        raise Missing("the probe batch has no targets that TrainVitals can find")
    if targets.is_floating_point() or targets.is_complex():
        raise Missing(f"targets are not class labels: {targets.dtype} of shape {tuple(targets.shape)}")
    targets, found = targets.to(outputs.device).long(), False
    if outputs.shape[1] > 1 and outputs.shape[:1] + outputs.shape[2:] == targets.shape:
        found = True
        yield _Pairing(outputs.movedim(1, -1), targets)
    if outputs.shape[-1] > 1 and outputs.shape[:-1] == targets.shape:
        found = True
        yield _Pairing(outputs, targets)
        if targets.ndim == 2 and targets.shape[1] > 1:
            yield _Pairing(outputs, shifted(targets))
    if not found:
        raise Missing(
            f"not a classifier: outputs of shape {tuple(outputs.shape)} for targets of shape {tuple(targets.shape)}"
        )


def shifted(targets: Tensor) -> Tensor:
    """Return the targets of the next token, (N, T); the last token has none.

    >>> shifted(torch.tensor([[5, 6, 7]])).tolist()
    [[6, 7, -100]]
    """
    return torch.cat([targets[:, 1:], torch.full_like(targets[:, :1], IGNORED)], 1)


def _check_range(pairing: _Pairing) -> None:
    labels, num_classes = pairing.targets[pairing.targets != IGNORED], pairing.scores.shape[-1]
    if not len(labels):
        raise Missing("no token of the probe batch has a target")
    if int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        raise Missing(f"targets lie outside 0..{num_classes - 1} (and {IGNORED} for none)")


def cross_entropies(scores: Tensor, pairings: Sequence[Tensor]) -> list[tuple[float, float]]:
    """Return two means of the cross-entropy for each of several targets: over tokens, and over samples' own means.

    The softmax is taken once for all, in the dtype of the scores: it is to tell pairings apart.

    Args:
        scores: (N, T..., C).
        pairings: targets (N, T...), -100 where there is none.
    """
    size = max(1, _CHUNK_ENTRIES // max(1, scores[:1].numel()))
    sums = torch.zeros(len(pairings), len(scores), dtype=torch.float64, device=scores.device)  # of each sample
    for start in range(0, len(scores), size):
        z = scores[start : start + size]
        log_z = z.logsumexp(-1)  # (n, T...)
        for index, targets in enumerate(pairings):
            y = targets[start : start + size]
            losses = log_z - z.gather(-1, y.clamp(min=0)[..., None]).squeeze(-1)
            sums[index, start : start + size] = losses.double().masked_fill(y == IGNORED, 0.0).flatten(1).sum(1)
    return [_means(total, (y != IGNORED).flatten(1).sum(1)) for total, y in zip(sums, pairings, strict=True)]


def _means(sums: Tensor, counts: Tensor) -> tuple[float, float]:
    kept = counts > 0
    if not kept.any():
        return math.nan, math.nan
    return float(sums.sum() / counts.sum()), float((sums[kept] / counts[kept]).mean())
