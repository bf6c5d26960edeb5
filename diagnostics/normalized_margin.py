"""The margin of the outputs over what the weight matrices can stretch: growing the weights does not grow it.

Legend: R labelled cases (samples, or tokens with a target), W_l the weight matrices, σ_max the largest singular
value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Part, Snapshot, Tier
from trainvitals.diagnostics.by_layer import in_words
from trainvitals.diagnostics.margin import margins
from trainvitals.diagnostics.weight_spectra import weight_spectra
from trainvitals.schema import Question, Reading, ReferenceLine


@dataclass
class NormalizedMargin(Diagnostic):
    """(z_y − max_{k≠y} z_k)/Π_l σ_max(W_l) on the train probe, over all trainable weights of two dimensions or more.

    `mean`, with the standard error of the mean for the data that the probe was drawn from, and `lowest`, exact. Of a
    chain of bias-free layers with 1-Lipschitz, positively homogeneous activations (ReLU), scaling a layer changes
    nothing, and margin/(√2 Πσ) is a lower bound on the distance of an input to the boundary. Of other networks the
    product is no Lipschitz constant: branches add up, normalisation undoes the scale, a convolution as a matrix is
    not its operator on images; the number is then a scale-free margin for one run, not to be compared between
    architectures. Details: `log_product`, log Π_l σ_max(W_l). No options.
    """

    name = "margin.normalized"
    title = "Normalised margin"
    question = Question.OVERFITTING
    summary = "By how much the right class leads, over the product of the layers' spectral norms."
    formula = r"(z_{y} - \max_{k \ne y} z_k) \big/ \textstyle\prod_l \sigma_{\max}(W_l)"
    undefined = (
        "Outputs without classes for the targets, or with NaN or Inf; a weight matrix that is zero, holds NaN or Inf, "
        "or has more than 4096 singular values; no weight matrix; a product too large or too small for a number."
    )
    source = (
        "Bartlett, Foster, Telgarsky 2017, Spectrally-normalized margin bounds for neural networks, section 1 (there "
        "with a further factor of norms)"
    )
    needs = Needs.OUTPUTS | Needs.PARAMETERS
    tier = Tier.FULL
    interval = 500
    references = (ReferenceLine("classified right", 0.0, "by the definition"),)
    parts = {
        "mean": Part(
            "Mean normalised margin", "By how much the right class leads over the spectral norms, on average."
        ),
        "lowest": Part("Lowest normalised margin", "The normalised margin of the sample that is farthest from right."),
    }

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return the mean and the lowest normalised margin."""
        cases, spectra = snapshot.train.labelled, snapshot.once(weight_spectra)
        if not cases.outputs.isfinite().all():
            raise Missing("the outputs hold NaN or Inf")
        zero = {name: "it is zero" for name, sigma in spectra.values.items() if not sigma.any()}
        unknown = {**spectra.left_out, **zero}
        if unknown or not spectra.values:
            raise Missing(in_words(unknown) or "the model has no weight matrix")
        log_product = sum(math.log(float(sigma[0])) for sigma in spectra.values.values())
        if abs(log_product) > 600:
            raise Missing(f"the product of the spectral norms, e^{log_product:.0f}, is no number")
        found = margins(cases.outputs, cases.labels) * math.exp(-log_product)
        lowest, details = int(found.argmin()), {"log_product": log_product}
        return {
            "mean": Reading(float(found.mean()), cases.mean_error(found), details=details),
            "lowest": Reading(float(found[lowest]), details={**details, "sample": int(cases.samples[lowest])}),
        }
