r"""How the network stands up to small changes of its inputs, and the signs of catastrophic overfitting.

Legend: N samples, n samples of one batch, ε radius of the ball max abs(δ) ≤ ε around each input, ℓ_i(x) loss of
sample i at input x.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Evaluation, Missing, Needs, Part, Snapshot, Tier, or_missing
from trainvitals.diagnostics.generalization_gap import share_error
from trainvitals.diagnostics.input_loss import InputLoss, input_gradient
from trainvitals.schema import Question, Reading, ReferenceLine

_STEP_OF_RADIUS = 2.5  # times ε over the number of steps: from anywhere in the ball to its edge and back


@dataclass(frozen=True)
class Ball:
    """The inputs that an attack may choose: within ε of the sample's own, and within the range of the data."""

    epsilon: float
    clip: tuple[float, float] | None = None

    def project(self, inputs: Tensor, centre: Tensor) -> Tensor:
        """Return the nearest inputs (n, ...) of the ball around each centre (n, ...)."""
        low, high = centre - self.epsilon, centre + self.epsilon
        if self.clip is not None:
            low, high = low.clamp(min=self.clip[0]), high.clamp(max=self.clip[1])
        return torch.minimum(torch.maximum(inputs, low), high)

    def drawn(self, centre: Tensor, generator: torch.Generator) -> Tensor:
        """Return one input from each ball, uniform in it (where the range cuts it: at the edge more often)."""
        noise = 2 * torch.rand(centre.shape, generator=generator, dtype=torch.float64) - 1
        return self.project(centre + self.epsilon * noise.to(centre.device, centre.dtype), centre)


def fgsm(loss: InputLoss, ball: Ball) -> Tensor:
    """Return the inputs after one step of length ε along the sign of the gradient, (n, ...) (Goodfellow et al. 2015).

    Raises:
        Missing: as `input_gradient`.
    """
    x = loss.inputs
    return ball.project(x + ball.epsilon * input_gradient(loss, x).sign(), x)


def pgd(loss: InputLoss, ball: Ball, num_steps: int, step_size: float, generator: torch.Generator) -> Tensor:
    """Return the inputs after projected ascent by the sign of the gradient from a random start (Madry et al. 2018).

    Raises:
        Missing: as `input_gradient`.
    """
    x = ball.drawn(loss.inputs, generator)
    for _ in range(num_steps):
        x = ball.project(x + step_size * input_gradient(loss, x).sign(), loss.inputs)
    return x


def linearity_errors(loss: InputLoss, ball: Ball, generator: torch.Generator) -> Tensor:
    r"""Return (ℓ_i(αa + (1−α)b) − αℓ_i(a) − (1−α)ℓ_i(b))² of each sample, (n,): 0 where the loss is linear in its ball.

    a and b are drawn from the sample's ball, α uniform in [0, 1] (Abad Rocamora et al. 2024).
    """
    a, b = ball.drawn(loss.inputs, generator), ball.drawn(loss.inputs, generator)
    alpha = torch.rand(loss.num_samples, generator=generator, dtype=torch.float64)
    wide = alpha.view(-1, *[1] * (a.ndim - 1)).to(a.device, a.dtype)
    at_a, at_b, between = (loss.outputs_and_losses(x)[1] for x in (a, b, wide * a + (1 - wide) * b))
    alpha = alpha.to(at_a.device)
    return (between - alpha * at_a - (1 - alpha) * at_b).square()


def rights(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return whether each sample is classified right, (n,).

    Raises:
        Missing: if this is no classifier of samples, as `Evaluation.labels`.
    """
    labels, _ = Evaluation(0.0, outputs, targets, len(outputs)).labels()
    return outputs.argmax(1) == labels.to(outputs.device)


def _share(flags: Tensor, details: Mapping[str, Any] | None = None) -> Reading:
    share = float(flags.double().mean())
    return Reading(share, share_error(share, len(flags)), details=details or {})


def _difference(one: Reading, other: Reading, names: tuple[str, str]) -> Reading:
    """Return one share less another of the same samples, or the reason that either is missing."""
    for reading in (one, other):
        if reading.missing is not None:
            return Reading.absent(reading.missing)
    return Reading(one.value - other.value, details=dict(zip(names, (one.value, other.value), strict=True)))


@dataclass
class Adversarial(Diagnostic):
    """What small changes of the inputs, at most ε in each entry, do to the loss and to the accuracy.

    `linearity`: mean over train samples of the squared error of the loss against linear interpolation between two
    random points of the sample's ball; its error is the standard error over samples. `abnormal`: share of train
    samples whose loss is *lower* after an FGSM step. `gap`: accuracy under FGSM less accuracy under PGD on the train
    probe; details: both. `robust.train` and `robust.heldout`: accuracy under PGD, with a binomial standard error;
    `robust.gap`: held-out less train. A single-step training that breaks keeps its FGSM accuracy while abnormal
    share, linearity error and gap rise. Attacks are lower bounds on what can be done: accuracy under the best attack
    is at most this. The random starts and pairs are the same at every measurement. In mode "eval", as all probes.

    Args:
        epsilon: ε, in the units of the model's inputs (8/255 is usual for images in [0, 1]). None: nothing is measured,
            for no radius fits all data.
        num_steps: of PGD.
        step_size: of PGD; None for 2.5 ε/num_steps (Madry et al. 2018, appendix), which reaches the edge from anywhere.
        clip: lowest and highest value that an input may take, as (0.0, 1.0); None: any.
        num_pairs: random pairs a sample for `linearity`; three forward passes each.
    """

    epsilon: float | None = None
    num_steps: int = 10
    step_size: float | None = None
    clip: Sequence[float] | None = None
    num_pairs: int = 1
    _ball: Ball | None = field(default=None, init=False, repr=False)

    name = "adv"
    title = "Adversarial inputs"
    question = Question.STABILITY
    summary = "How the network stands up to small changes of its inputs."
    formula = r"\max_{\lVert\delta\rVert_\infty \le \epsilon} \ell_i(x_i + \delta)"
    undefined = (
        "No radius was given (option epsilon); inputs that are not floating-point numbers, or lie outside the range in "
        "clip; a model that is called through forward=; a gradient by the inputs that is not finite, or none. "
        "Linearity and abnormal: a loss that has no value for one sample alone, is not their mean, or is not finite. "
        "Gap and robust: outputs that are not (N, C) or targets that are not class labels; robust.heldout: no held-out "
        "probe."
    )
    source = (
        "Goodfellow, Shlens, Szegedy 2015, Explaining and Harnessing Adversarial Examples, section 4 (FGSM); Madry et "
        "al. 2018, Towards Deep Learning Models Resistant to Adversarial Attacks, section 2.1 (PGD); Abad Rocamora et "
        "al. 2024, Efficient local linearity regularization to overcome catastrophic overfitting, section 3 "
        "(linearity); Lin et al. 2023, Eliminating Catastrophic Overfitting Via Abnormal Adversarial Examples "
        "Regularization (abnormal)"
    )
    needs = Needs.OUTPUTS | Needs.HELDOUT
    tier = Tier.ON_REQUEST
    interval = 200
    passes = "forward and backward passes to the inputs: one for FGSM, num_steps for PGD on each probe"
    parts = {
        "linearity": Part(
            "Linearity error of the loss around the inputs",
            "How far the loss is from linear within ε of each train sample, at random pairs of points.",
            unit="loss²",
            formula=r"\operatorname*{mean}_i\bigl(\ell_i(\alpha a + (1-\alpha) b) - \alpha\ell_i(a) "
            r"- (1-\alpha)\ell_i(b)\bigr)^2",
        ),
        "abnormal": Part(
            "Abnormal adversarial examples",
            "For how many train samples the loss falls under an attack that should raise it.",
            unit="share of samples", formula=r"\frac{1}{N}\,\#\{i : \ell_i(x_i^{\text{FGSM}}) < \ell_i(x_i)\}",
            references=(ReferenceLine("none", 0.0, "by the definition: a loss that is linear in the ball"),),
        ),
        "gap": Part(
            "FGSM minus PGD accuracy",
            "How much more accurate the network is under a single-step attack than under one of several steps.",
            unit="share of samples", formula=r"A_{\text{FGSM}} - A_{\text{PGD}}",
        ),
        "robust.train": Part(
            "Accuracy under PGD on the train probe", "Share of the train probe classified right under PGD.",
            unit="share of samples", formula=r"\frac{1}{N}\,\#\{i : \hat y(x_i^{\text{PGD}}) = y_i\}",
        ),
        "robust.heldout": Part(
            "Accuracy under PGD on the held-out probe", "Share of the held-out probe classified right under PGD.",
            unit="share of samples", formula=r"\frac{1}{M}\,\#\{i : \hat y(x_i^{\text{PGD}}) = y_i\}",
        ),
        "robust.gap": Part(
            "Gap of the accuracy under PGD", "Held-out minus train accuracy under PGD: robust overfitting below 0.",
            unit="share of samples", formula=r"A^{\text{PGD}}_{\text{held-out}} - A^{\text{PGD}}_{\text{train}}",
        ),
    }  # fmt: skip

    def __post_init__(self) -> None:
        positive = [v for v in (self.epsilon, self.step_size) if v is not None]
        counts = (self.num_steps, self.num_pairs)
        if any(isinstance(v, bool) or not v > 0 for v in positive) or any(type(c) is not int or c < 1 for c in counts):
            raise ValueError(
                f"expected lengths above 0 and counts of at least 1, got epsilon={self.epsilon!r}, "
                f"step_size={self.step_size!r}, num_steps={self.num_steps!r}, num_pairs={self.num_pairs!r} in options "
                "of 'adv'; write {'adv': {'epsilon': 8 / 255}} for images in [0, 1]"
            )
        if self.clip is not None and not (len(self.clip) == 2 and self.clip[0] < self.clip[1]):
            raise ValueError(
                f"expected the lowest and the highest input, got clip={self.clip!r} in options of 'adv'; "
                "write (0.0, 1.0)"
            )
        if self.epsilon is not None:
            clip = None if self.clip is None else (float(self.clip[0]), float(self.clip[1]))
            self._ball = Ball(float(self.epsilon), clip)

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return linearity, abnormal share and accuracies under attack."""
        if self._ball is None:
            raise Missing("no radius was given; write {'adv': {'epsilon': ...}} in the units of the model's inputs")
        ball, losses = self._ball, snapshot.input_losses()
        _check_range(losses, ball)
        attacked = [fgsm(loss, ball) for loss in losses]
        train = or_missing(lambda: self._robust(snapshot, losses, ball, "train"))
        heldout = or_missing(lambda: self._robust_heldout(snapshot, ball))
        single = or_missing(lambda: _accuracy(losses, attacked))
        return {
            "linearity": or_missing(lambda: self._linearity(snapshot, losses, ball)),
            "abnormal": or_missing(lambda: _abnormal(losses, attacked)),
            "gap": _difference(single, train, ("fgsm", "pgd")),
            "robust.train": train,
            "robust.heldout": heldout,
            "robust.gap": _difference(heldout, train, ("heldout", "train")),
        }

    def _linearity(self, snapshot: Snapshot, losses: Sequence[InputLoss], ball: Ball) -> Reading:
        generator = snapshot.generator("adv.linearity")
        draws = [torch.cat([linearity_errors(loss, ball, generator) for loss in losses]) for _ in range(self.num_pairs)]
        errors = torch.stack(draws).mean(0)  # (N,)
        if not errors.isfinite().all():
            raise Missing("the loss of a sample is NaN or Inf within the ball")
        spread = float(errors.std() / len(errors) ** 0.5) if len(errors) > 1 else None
        return Reading(float(errors.mean()), spread)

    def _robust(self, snapshot: Snapshot, losses: Sequence[InputLoss], ball: Ball, probe: str) -> Reading:
        for loss in losses[:1]:  # before the dear part: is this a classifier at all
            with torch.no_grad():
                rights(loss.outputs(loss.inputs), loss.targets)
        size = self.step_size or _STEP_OF_RADIUS * ball.epsilon / self.num_steps
        generator = snapshot.generator(f"adv.pgd {probe}")
        return _accuracy(losses, [pgd(loss, ball, self.num_steps, size, generator) for loss in losses])

    def _robust_heldout(self, snapshot: Snapshot, ball: Ball) -> Reading:
        losses = snapshot.input_losses(heldout=True)
        _check_range(losses, ball)
        return self._robust(snapshot, losses, ball, "heldout")


def _check_range(losses: Sequence[InputLoss], ball: Ball) -> None:
    if ball.clip is None:
        return
    low = min(float(loss.inputs.min()) for loss in losses)
    high = max(float(loss.inputs.max()) for loss in losses)
    if low < ball.clip[0] or high > ball.clip[1]:
        raise Missing(f"inputs from {low:.4g} to {high:.4g} lie outside the range clip={ball.clip}")


def _accuracy(losses: Sequence[InputLoss], inputs: Sequence[Tensor]) -> Reading:
    with torch.no_grad():
        found = [rights(loss.outputs(x), loss.targets) for loss, x in zip(losses, inputs, strict=True)]
    return _share(torch.cat(found))


def _abnormal(losses: Sequence[InputLoss], inputs: Sequence[Tensor]) -> Reading:
    before = torch.cat([loss.outputs_and_losses(loss.inputs)[1] for loss in losses])
    after = torch.cat([loss.outputs_and_losses(x)[1] for loss, x in zip(losses, inputs, strict=True)])
    if not (before.isfinite().all() and after.isfinite().all()):
        raise Missing("the loss of a sample is NaN or Inf")
    return _share(after < before)
