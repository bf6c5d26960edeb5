"""Do the gradients agree: between samples of a batch, and from step to step.

Everything between samples is a function of `GradientSums`: no pair of samples is ever formed.

Legend: N samples, C classes, K blocks, P trainable parameters, û unit gradients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Part, Snapshot, Tier, or_missing
from trainvitals.diagnostics.gradient_sums import NUM_BLOCKS, GradientSums
from trainvitals.diagnostics.jackknife import jackknife_error
from trainvitals.schema import Chart, Question, Reading, ReferenceLine, Scale


def mean_pairwise_cosine(unit_sum: Tensor, num_units: float) -> float:
    """Return the mean cosine over all pairs of B vectors: (‖Σ û‖² − B)/(B(B−1)), in [−1/(B−1), 1].

    Args:
        unit_sum: (P,) sum of the B unit vectors.
        num_units: B.

    Raises:
        Missing: if B < 2.

    >>> mean_pairwise_cosine(torch.tensor([1.0, 1.0]), 2)  # two orthogonal vectors
    0.0
    """
    if num_units < 2:
        raise Missing(f"a cosine needs two samples with a gradient that is not zero, got {int(num_units)}")
    return (float(unit_sum.double().square().sum()) - num_units) / (num_units * (num_units - 1))


def class_cosines(sums: GradientSums) -> dict[str, float | str]:
    """Return mean cosines of pairs within one class and of pairs across classes ("stiffness").

    Pairs are weighted alike, whatever their class. A kind without a pair is left out; `"without_classes"`
    gives the reason when class sums were not kept.
    """
    if sums.class_unit_sums is None or sums.class_counts is None:
        return {"without_classes": sums.without_class_sums or ""}
    counts, total = sums.class_counts, float(sums.class_counts.sum())
    squares = float(sums.class_unit_sums.square().sum())  # Σ_c ‖Σ_{i in c} û_i‖²
    num_within = float((counts * (counts - 1)).sum())
    num_between = total**2 - float(counts.square().sum())
    cosines: dict[str, float | str] = {}
    if num_within > 0:
        cosines["within_classes"] = (squares - total) / num_within
    if num_between > 0:
        cosines["between_classes"] = (float(sums.unit_sum.square().sum()) - squares) / num_between
    return cosines


def coherence(sums: GradientSums) -> float:
    """Return m-coherence N‖ḡ‖²/mean‖g_i‖² = ‖Σ g_i‖²/Σ‖g_i‖², in [0, N].

    Raises:
        Missing: if every gradient is zero.
    """
    energy = float(sums.squared_norms.sum())
    if energy == 0:
        raise Missing("the gradient of every sample is zero")
    return float(sums.sum.square().sum()) / energy


class NoiseAndSignal(NamedTuple):
    """tr Σ̂, the trace of the covariance of per-sample gradients, and |G|², the true gradient's square."""

    trace: float
    square: float


def noise_and_signal(num_samples: float, mean_square: float, energy: float) -> NoiseAndSignal:
    """Return unbiased tr Σ̂ = (Σ‖g_i‖² − N‖ḡ‖²)/(N−1) and |G|² = ‖ḡ‖² − tr Σ̂/N.

    Args:
        num_samples: N >= 2.
        mean_square: ‖ḡ‖².
        energy: Σ‖g_i‖².
    """
    trace = (energy - num_samples * mean_square) / (num_samples - 1)
    return NoiseAndSignal(trace, mean_square - trace / num_samples)


def of_all_samples(sums: GradientSums) -> NoiseAndSignal:
    """Return tr Σ̂ and |G|² of at least two samples.

    Raises:
        Missing: if there are fewer.
    """
    num = sums.num_samples
    if num < 2:
        raise Missing(f"a variance needs at least 2 samples, the probe has {num}")
    return noise_and_signal(num, float(sums.sum.square().sum()) / num**2, float(sums.squared_norms.sum()))


def without_each_block(sums: GradientSums) -> list[NoiseAndSignal] | None:
    """Return tr Σ̂ and |G|² without each block of samples, or None if that is not known: see `without_error`."""
    if sums.block_sums is None or sums.num_samples < NUM_BLOCKS:
        return None
    num, counts = float(sums.num_samples), sums.block_counts().double()  # N, (K,)
    energy, square = float(sums.squared_norms.sum()), float(sums.sum.square().sum())
    norms, dots = sums.block_sums.square().sum(1).cpu(), (sums.block_sums @ sums.sum).cpu()  # (K,)
    blocks = torch.arange(sums.num_samples) % NUM_BLOCKS
    energies = torch.zeros(NUM_BLOCKS, dtype=torch.float64).index_add_(0, blocks, sums.squared_norms.double().cpu())
    left_out = []
    for k in range(NUM_BLOCKS):
        rest = num - float(counts[k])
        mean_square = (square - 2 * float(dots[k]) + float(norms[k])) / rest**2
        left_out.append(noise_and_signal(rest, mean_square, energy - float(energies[k])))
    return left_out


def without_error(sums: GradientSums) -> str:
    """Return why `without_each_block` gives nothing."""
    few = f"{sums.num_samples} samples are fewer than the {NUM_BLOCKS} blocks of the jackknife"
    return sums.without_block_sums or few


def noise_scale_error(sums: GradientSums) -> float | None:
    r"""Return a standard error of tr Σ̂/|G|², by the delete-a-block jackknife on its linearisation.

    With R the ratio, T − R·|G|² is a linear mix of two U-statistics, zero on the full sample; its jackknife
    variance over K blocks, weighted for blocks of unequal size, divided by |G|⁴ is the delta method's
    variance of R. The ratio itself is not recomputed per block: where |G|² is barely positive, a block
    could turn its sign.

    Returns:
        The error, or None if there are fewer samples than blocks or block sums were not kept.
    """
    left_out = without_each_block(sums)
    if left_out is None:
        return None
    whole = of_all_samples(sums)
    ratio = whole.trace / whole.square
    estimates = torch.tensor([part.trace - ratio * part.square for part in left_out], dtype=torch.float64)
    return jackknife_error(0.0, estimates, sums.block_counts()) / whole.square  # the full sample's value is zero


def cosine_of(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Return the cosine between two vectors given tensor by tensor; a tensor that one lacks is zero there.

    Raises:
        Missing: if one of them is zero.
    """
    dot = sum(float((one[name].double() * other[name].double()).sum()) for name in one.keys() & other.keys())
    norms = [math.sqrt(sum(float(t.double().square().sum()) for t in v.values())) for v in (one, other)]
    if 0 in norms:
        raise Missing("one of the two vectors is zero, so they have no angle")
    return dot / (norms[0] * norms[1])


def finite_sums(snapshot: Snapshot) -> GradientSums:
    """Return the snapshot's sums. Raises Missing if a per-sample gradient holds NaN or Inf."""
    sums = snapshot.gradient_sums
    if sums.num_nonfinite:
        raise Missing(f"{sums.num_nonfinite} of {sums.num_samples} per-sample gradients hold NaN or Inf")
    return sums


@dataclass
class GradientNorm(Diagnostic):
    """‖g_l‖ of each parameter tensor, g the gradient of the mean loss of the train probe.

    Value (L,) in the order of the parameters; `details["total"]` is the norm over all of them. Exact.
    A gradient with NaN gives NaN. Defined whenever there is a loss. No options.
    """

    name = "grad.norm"
    title = "Gradient norm per layer"
    question = Question.GRADIENTS
    summary = "How large the gradient of the train probe's mean loss is in each parameter tensor."
    formula = r"\lVert \nabla_{\theta_l} L \rVert"
    unit = "loss per unit of weight"
    undefined = "Never, as long as the model has trainable parameters and a loss."
    source = "Pascanu, Mikolov, Bengio 2013, On the difficulty of training recurrent neural networks"
    needs = Needs.GRADIENT
    tier = Tier.DEFAULT
    interval = 100
    chart = Chart.HEATMAP
    scale = Scale.LOG
    keys = "parameter"

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the norms (L,)."""
        norms = torch.stack([g.double().square().sum().sqrt() for g in snapshot.gradient.values()])
        total = float(norms.square().sum().sqrt())
        return Reading(value=norms, keys=tuple(snapshot.gradient), details={"total": total})


@dataclass
class GradientCosine(Diagnostic):
    """Mean cosine between the gradients of two samples, over all pairs, without forming a pair.

    Value in [−1/(N−1), 1], exact on the probe batch. Details: `within_classes` and `between_classes`, the
    same over pairs of one class and across classes, when samples have labels (else `without_classes` says
    why not), and `num_zero`, samples left out because their gradient is zero. No options.
    """

    name = "grad.cosine"
    title = "Mean pairwise cosine of gradients"
    question = Question.GRADIENTS
    summary = "Whether a step that helps one sample helps another: 1 agree, 0 unrelated, below 0 conflict."
    formula = r"\frac{B^2 \lVert \frac{1}{B}\sum_i \hat u_i \rVert^2 - B}{B(B-1)},\ \hat u_i = g_i/\lVert g_i \rVert"
    undefined = "Fewer than two samples with a gradient that is not zero, or a gradient with NaN or Inf."
    source = "Fort, Nowak, Jastrzebski, Narayanan 2019, Stiffness: A new perspective on generalization"
    needs = Needs.PER_SAMPLE_GRADIENTS
    tier = Tier.DEFAULT
    interval = 100
    references = (
        ReferenceLine("unrelated", 0.0, "cosine of independent directions in many dimensions; by the definition"),
    )

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the mean cosine."""
        sums = finite_sums(snapshot)
        value = mean_pairwise_cosine(sums.unit_sum, sums.num_samples - sums.num_zero)
        return Reading(value=value, details={"num_zero": sums.num_zero, **class_cosines(sums)})


@dataclass
class GradientCoherence(Diagnostic):
    """m-coherence N‖ḡ‖²/mean‖g_i‖²: how many samples, on average, a step along one sample's gradient helps.

    Value in [0, N], exact on the probe batch: N for identical gradients, 1 for orthogonal ones of any
    lengths. Details: `num_samples` N, `per_sample` the value over N. No options.
    """

    name = "grad.coherence"
    title = "m-coherence of gradients"
    question = Question.GRADIENTS
    summary = "How many samples of the probe a step along one sample's gradient helps: high on common structure."
    formula = r"N \lVert \bar g \rVert^2 \big/ \tfrac{1}{N}\sum_i \lVert g_i \rVert^2"
    unit = "samples"
    undefined = "The gradient of every sample is zero, or one holds NaN or Inf."
    source = "Chatterjee, Zielinski 2022, On the Generalization Mystery in Deep Learning (m-coherence)"
    needs = Needs.PER_SAMPLE_GRADIENTS
    tier = Tier.DEFAULT
    interval = 100
    scale = Scale.LOG
    references = (
        ReferenceLine("orthogonal gradients", 1.0, "Chatterjee, Zielinski 2022: the orthogonal limit"),
    )

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the coherence."""
        sums = finite_sums(snapshot)
        value, num = coherence(sums), sums.num_samples
        return Reading(value=value, details={"num_samples": num, "per_sample": value / num})


@dataclass
class GradientNoiseScale(Diagnostic):
    r"""tr Σ̂/|G|², the batch size at which gradient noise is as large as the gradient ("simple" noise scale).

    Both parts are unbiased, from N per-sample gradients; the ratio of the two is not, and its error is a
    standard error by the delete-a-block jackknife (None below 16 samples, with an average over time, or
    when block sums do not fit into memory; `details["without_error"]` says which). Details:
    `trace_covariance`, `gradient_norm_squared`. It speaks of the data that the probe was drawn from.

    Args:
        ema_decay: decay d in [0, 1) of an exponential moving average over measurements of tr Σ̂ and of |G|²
            before the ratio, corrected for its start. 0 (default): no average, so that the same weights
            give the same number.

    Raises:
        ValueError: if `ema_decay` lies outside [0, 1).
    """

    ema_decay: float = 0.0
    _trace: float = field(default=0.0, init=False, repr=False)
    _square: float = field(default=0.0, init=False, repr=False)
    _weight: float = field(default=0.0, init=False, repr=False)

    name = "grad.noise_scale"
    title = "Gradient noise scale"
    question = Question.GRADIENTS
    summary = "The batch size above which larger batches stop paying: small when the gradients agree."
    formula = r"\operatorname{tr}\hat\Sigma \big/ |G|^2"
    unit = "samples"
    undefined = "|G|² ≤ 0: the noise hides the gradient on this probe. Fewer than 2 samples; NaN or Inf in a gradient."
    source = (
        "McCandlish, Kaplan, Amodei 2018, An Empirical Model of Large-Batch Training, section 2.2 and appendix A.1"
    )
    needs = Needs.PER_SAMPLE_GRADIENTS
    tier = Tier.DEFAULT
    interval = 100
    scale = Scale.LOG

    def __post_init__(self) -> None:
        if not 0.0 <= self.ema_decay < 1.0:
            raise ValueError(
                f"expected 0 <= ema_decay < 1, got {self.ema_decay} in the options of 'grad.noise_scale'; "
                "leave it at 0 for no average, or try 0.9"
            )

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the noise scale."""
        sums = finite_sums(snapshot)
        trace, square = self._averaged(of_all_samples(sums))
        if square <= 0:
            raise Missing(
                f"the estimate of |G|² is {square:.3g}, not positive: on {sums.num_samples} samples the noise hides "
                "the gradient"
            )
        error, words = self._error(sums)
        details = {"trace_covariance": trace, "gradient_norm_squared": square, **words}
        return Reading(value=trace / square, error=error, details=details)

    @property
    def remembers(self) -> bool:
        """Whether a measurement depends on the ones before it: only with an average over time."""
        return self.ema_decay > 0

    def _averaged(self, now: NoiseAndSignal) -> NoiseAndSignal:
        d = self.ema_decay
        self._trace = d * self._trace + (1 - d) * now.trace
        self._square = d * self._square + (1 - d) * now.square
        self._weight = d * self._weight + (1 - d)
        return NoiseAndSignal(self._trace / self._weight, self._square / self._weight)

    def _error(self, sums: GradientSums) -> tuple[float | None, dict[str, Any]]:
        if self.ema_decay > 0:
            return None, {"without_error": "measurements on one probe are not independent, so an average has none"}
        error = noise_scale_error(sums)
        return error, {} if error is not None else {"without_error": without_error(sums)}


@dataclass
class SuccessiveCosine(Diagnostic):
    """Cosines between the last two training steps: of their gradients and of their updates.

    Both from the training loop itself, over all trainable parameters; values in [−1, 1], exact. −1 is a
    bounce across a valley, 1 a straight path. Parameters without a gradient count as zero. No options.
    """

    name = "grad.successive"
    title = "Cosine between successive steps"
    question = Question.GRADIENTS
    summary = "Whether the run goes straight (1), wanders (0) or bounces across a valley (−1)."
    formula = r"\cos(g_t, g_{t-1}),\ \cos(\Delta\theta_t, \Delta\theta_{t-1})"
    undefined = "Before the second training step, outside a watched run, or when a gradient or an update is zero."
    source = (
        "Xing, Arpit, Tsirigotis, Bengio 2018, A Walk with SGD "
        "(angle between successive mini-batch gradients)"
    )
    needs = Needs.TRAJECTORY
    tier = Tier.DEFAULT
    interval = 20
    references = (ReferenceLine("a quarter turn", 0.0, "by the definition of the cosine"),)
    parts = {
        "gradient": Part(
            "Cosine of successive gradients",
            "Whether two successive training gradients point the same way; −1 is a bounce across a valley.",
            formula=r"\cos(g_t, g_{t-1})",
        ),
        "update": Part(
            "Cosine of successive updates",
            "Whether two successive updates point the same way; momentum pulls it towards 1.",
            formula=r"\cos(\Delta\theta_t, \Delta\theta_{t-1})",
        ),
    }

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return one cosine for gradients and one for updates."""
        t = snapshot.trajectory
        pairs = {"gradient": (t.gradient, t.previous_gradient), "update": (t.update, t.previous_update)}
        return {part: or_missing(lambda one=one, two=two: _successive(one, two)) for part, (one, two) in pairs.items()}


def _successive(now: Mapping[str, Tensor], before: Mapping[str, Tensor] | None) -> Reading:
    if before is None:
        raise Missing("needs two successive training steps, only one was recorded")
    return Reading(value=cosine_of(now, before))
