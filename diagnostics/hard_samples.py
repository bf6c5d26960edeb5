"""How hard each sample is for the network, by sample: keys are the samples' places in the train probe.

Wrong labels stand out early in training and blend in as they are memorised.

Legend: N samples of the train probe, C classes, p_i (C,) softmax of the outputs, g_i gradient of sample i's loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Snapshot, Tier
from trainvitals.diagnostics.class_probabilities import ClassProbabilities, on_train
from trainvitals.schema import Chart, Question, Reading, Scale

_SOURCE = "Paul, Ganguli, Dziugaite 2021, Deep Learning on a Data Diet: Finding Important Examples Early in Training"
_NUM_NAMED = 10


def sample_keys(num_samples: int) -> tuple[str, ...]:
    """Return the places of the probe's samples as keys.

    >>> sample_keys(3)
    ('0', '1', '2')
    """
    return tuple(str(i) for i in range(num_samples))


def by_sample(values: Tensor) -> Reading:
    """Return the reading of one number a sample (N,), with the mean and the samples of the largest in its details."""
    largest = values.nan_to_num(nan=-torch.inf).topk(min(_NUM_NAMED, len(values))).indices
    details = {"mean": float(values.mean()), "largest": largest.double()}
    return Reading(value=values, keys=sample_keys(len(values)), details=details)


def error_norms(probabilities: ClassProbabilities) -> Tensor:
    """Return ‖p_i − onehot(y_i)‖₂ of each sample, (N,)."""
    one_hot = torch.nn.functional.one_hot(probabilities.labels, probabilities.log_p.shape[1])
    return (probabilities.p - one_hot).norm(dim=1)


@dataclass
class El2n(Diagnostic):
    """EL2N: the norm of the error ‖softmax(f(x_i)) − onehot(y_i)‖₂ of each sample of the train probe.

    Value (N,) in [0, √2], exact; keys are the samples' places in the probe batch. Details: `mean`, and `largest`,
    the ten hardest samples. The paper averages over ten networks early in training; this is one. No options.
    """

    name = "el2n"
    title = "Error norm of each sample (EL2N)"
    question = Question.SAMPLES
    summary = "Which samples of the train probe the network gets wrong, and by how much; early on, wrong labels."
    formula = r"\lVert \operatorname{softmax}(f(x_i)) - \operatorname{onehot}(y_i) \rVert_2"
    undefined = "Outputs that are not (N, C), targets that are not class labels, or outputs with NaN or Inf."
    source = f"{_SOURCE}, definition 2.2"
    needs = Needs.OUTPUTS
    tier = Tier.FULL
    interval = 50
    chart = Chart.HEATMAP
    keys = "sample"

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return one norm per sample."""
        return by_sample(error_norms(snapshot.once(on_train)))


@dataclass
class Grand(Diagnostic):
    """GraNd: the norm of the gradient of each sample's loss, ‖g_i‖₂, over all trainable parameters.

    Value (N,), exact; keys are the samples' places in the probe batch. Details: `mean`, and `largest`, the ten
    samples with the largest. The paper averages over ten networks early in training; this is one. No options.
    """

    name = "grand"
    title = "Gradient norm of each sample (GraNd)"
    question = Question.SAMPLES
    summary = "Which samples of the train probe pull at the weights hardest."
    formula = r"\lVert \nabla_\theta \ell_i(\theta) \rVert_2"
    unit = "loss / weight"
    undefined = "A loss that is not a mean over samples, or a model that does not take one sample alone."
    source = f"{_SOURCE}, definition 2.1"
    needs = Needs.PER_SAMPLE_GRADIENTS
    tier = Tier.FULL
    interval = 100
    chart = Chart.HEATMAP
    scale = Scale.LOG
    keys = "sample"

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return one norm per sample."""
        squared = snapshot.gradient_sums.squared_norms
        if not squared.isfinite().all():
            raise Missing(f"{int((~squared.isfinite()).sum())} samples have a gradient with NaN or Inf")
        return by_sample(squared.sqrt())
