"""Whether the spectrum of a weight matrix ends in a power law, and with which exponent.

Legend: L weight matrices, W (m, n) one of them, N = max(m, n), λ = σ²/N the eigenvalues of WᵀW/N (WWᵀ/N if
m < n), t of them in the tail.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Part, Snapshot, Tier
from trainvitals.diagnostics.by_layer import in_words
from trainvitals.diagnostics.weight_spectra import Spectra, weight_spectra
from trainvitals.schema import Chart, Question, Reading

# Below about 50 values neither the exponent nor the fit distance says much: Clauset, Shalizi, Newman 2009,
# section 3.3 (n ≳ 50 as a rule of thumb for the tail).
MIN_EIGENVALUES = 50


class PowerLaw(NamedTuple):
    """p(λ) ∝ λ^−α for λ ≥ x_min, fitted to the largest t values."""

    exponent: float  # α
    distance: float  # D, Kolmogorov-Smirnov distance of the tail to the fit
    x_min: float
    num_tail: int  # t

    @property
    def error(self) -> float:
        """(α − 1)/√t, the standard error of α at a given x_min."""
        return (self.exponent - 1) / math.sqrt(self.num_tail)


def fit_power_law(values: np.ndarray) -> PowerLaw:
    """Fit a continuous power law to the tail, its start at the value with the smallest distance D.

    For every candidate x_min among the values, α = 1 + t/Σ log(λ_i/x_min) by maximum likelihood, and
    D = max |S(λ) − P(λ)| over the tail, S the empirical and P the fitted distribution function, S taken on
    both sides of its jumps. The candidate with the smallest D is kept.

    Args:
        values: positive, in any order, at least two different ones.

    Raises:
        ValueError: if there are fewer than two different values, or one is not positive and finite.

    Source: Clauset, Shalizi, Newman 2009, Power-Law Distributions in Empirical Data, equations 3.1 and 3.9.

    >>> quantiles = (np.arange(1000) + 0.5) / 1000
    >>> round(fit_power_law((1 - quantiles) ** (-1 / 1.5)).exponent, 2)  # α − 1 = 1.5
    2.5
    """
    x = np.sort(np.asarray(values, np.float64))
    candidates = np.flatnonzero(np.diff(x, prepend=-np.inf) > 0)  # the first of each run of equal values
    if len(candidates) < 2 or not (x[0] > 0 and np.isfinite(x[-1])):
        raise ValueError(
            f"expected at least two different positive finite values, got {len(candidates)} between "
            f"{x[0] if len(x) else None} and {x[-1] if len(x) else None} in fit_power_law; leave zeros out"
        )
    logs = np.log(x)
    best: PowerLaw | None = None
    for start in candidates[:-1]:  # the largest value alone has no spread
        tail = logs[start:] - logs[start]
        num = len(tail)
        slope = num / tail.sum()  # α − 1
        fitted = -np.expm1(-slope * tail)  # P(λ) = 1 − (λ/x_min)^(1 − α)
        ranks = np.arange(num + 1) / num
        distance = max(float((fitted - ranks[:-1]).max()), float((ranks[1:] - fitted).max()))
        if best is None or distance < best.distance:
            best = PowerLaw(1 + float(slope), distance, float(x[start]), num)
    assert best is not None
    return best


def eigenvalues(sigma: torch.Tensor, shape: tuple[int, int]) -> np.ndarray:
    """Return the eigenvalues of WᵀW/N that are not zero to rounding: below σ_max·N·ε they are noise.

    Args:
        sigma: (r,) singular values of W.
        shape: (m, n) of W; N is the larger.
    """
    N = max(shape)
    kept = sigma[sigma > sigma.max() * N * torch.finfo(torch.float32).eps]  # weights are trained in float32 at most
    return (kept.double().square() / N).numpy()


@dataclass
class SpectrumTail(Diagnostic):
    """Power-law exponent α of the tail of the spectrum of WᵀW/N for each weight matrix, and how well it fits.

    `value`: α by maximum likelihood, `error`: its standard error (α − 1)/√t at the chosen start of the tail.
    The choice of that start is not in the error: on samples of a true power law, twice the error covered α in
    89 % of cases at 60 values, 92 % at 200 and 93 % at 1000, where a full error would cover 95 %.
    `distance`: the Kolmogorov-Smirnov distance D between tail and fit; on a spectrum that is no power law α
    means nothing, and D is what tells. Both (L,), by parameter name; `details`: `x_min` and `num_tail` t. A
    matrix with fewer than 50 eigenvalues above rounding is left out (`details["left_out"]`), and kernels are
    matrices as in `weights.spectral`, where WeightWatcher's default cuts them into one slice per position.
    No options.

    Source: Martin and Mahoney 2021 (exponents of trained layers); Clauset, Shalizi, Newman 2009 (the fit).
    """

    name: ClassVar = "weights.alpha"
    title: ClassVar = "Power law of the weight spectra"
    question: ClassVar = Question.WEIGHTS
    summary: ClassVar = "Whether the large eigenvalues of each weight matrix follow a power law, and how heavy it is."
    formula: ClassVar = r"p(\lambda) \propto \lambda^{-\alpha},\ \lambda \ge x_{\min},\ \lambda = \sigma^2/N"
    undefined: ClassVar = "No weight matrix has 50 eigenvalues above rounding."
    source: ClassVar = (
        "Martin, Mahoney 2021, Implicit Self-Regularization in Deep Neural Networks; "
        "Clauset, Shalizi, Newman 2009, Power-Law Distributions in Empirical Data, section 3"
    )
    needs: ClassVar = Needs.PARAMETERS
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 500
    chart: ClassVar = Chart.HEATMAP
    keys: ClassVar = "parameter"
    parts: ClassVar = {
        "value": Part(
            "Power-law exponent per layer",
            "How heavy the tail of the spectrum is: smaller is heavier. Read it with its fit distance.",
        ),
        "distance": Part(
            "Distance of the spectrum to its power law",
            "Kolmogorov-Smirnov distance between the tail and the fitted power law: 0 is a perfect fit.",
            formula=r"D = \max_{\lambda \ge x_{\min}} \lvert S(\lambda) - P(\lambda)\rvert",
        ),
    }

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return exponents and fit distances, one per weight matrix with enough eigenvalues."""
        fits, left_out = _fits(snapshot.once(weight_spectra))
        if not fits:
            raise Missing(in_words(left_out) or "the model has no weight matrix")
        keys = tuple(fits)
        details = {
            "x_min": np.array([fit.x_min for fit in fits.values()]),
            "num_tail": np.array([fit.num_tail for fit in fits.values()]),
            **({"left_out": left_out} if left_out else {}),
        }
        value, error, distance = (
            np.array([getattr(fit, field) for fit in fits.values()]) for field in ("exponent", "error", "distance")
        )
        return {
            "value": Reading(value, error, keys=keys, details=details),
            "distance": Reading(distance, keys=keys, details=details),
        }


def _fits(spectra: Spectra) -> tuple[dict[str, PowerLaw], dict[str, str]]:
    fits, left_out = {}, dict(spectra.left_out)
    for name, sigma in spectra.values.items():
        found = eigenvalues(sigma, spectra.shapes[name])
        if len(found) < MIN_EIGENVALUES:
            left_out[name] = f"{len(found)} eigenvalues, a tail needs {MIN_EIGENVALUES}"
        elif found[0] == found[-1]:
            left_out[name] = "all its eigenvalues are equal"
        else:
            fits[name] = fit_power_law(found)
    return fits, left_out
