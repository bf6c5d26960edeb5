"""What the network makes of single input features: without one, with its sign turned, and with nothing else.

Legend: N samples, K named features, x (N, ...) inputs, taken as (N, D) columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Evaluation, Missing, Needs, Part, Snapshot, Tier
from trainvitals.diagnostics.generalization_gap import share_error
from trainvitals.diagnostics.input_loss import InputLoss
from trainvitals.diagnostics.margin import margins
from trainvitals.schema import Chart, Question, Reading, ReferenceLine

Columns = int | Sequence[int]
CHANGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # (N, D) inputs, (D,) True at the feature's columns
    "zeroed": lambda x, is_it: torch.where(is_it, 0.0, x),
    "flipped": lambda x, is_it: torch.where(is_it, -x, x),
    "alone": lambda x, is_it: torch.where(is_it, x, 0.0),
}
_FIX = "write {'feature.response': {'features': {'colour': 0, 'shape': [1, 2]}}} with columns of the flattened inputs"


def changed(inputs: Tensor, columns: Sequence[int], how: str) -> Tensor:
    """Return inputs (n, ...) with columns of the flattened inputs zeroed, flipped in sign, or all but them zeroed.

    >>> changed(torch.tensor([[1.0, 2.0, 3.0]]), [1], "alone").tolist()
    [[0.0, 2.0, 0.0]]
    """
    flat = inputs.flatten(1)
    is_it = torch.zeros(flat.shape[1], dtype=torch.bool, device=inputs.device)
    is_it[list(columns)] = True
    return CHANGES[how](flat, is_it).view(inputs.shape)


def _columns(features: Mapping[str, Columns] | Sequence[int] | None) -> dict[str, tuple[int, ...]]:
    """Return the columns of each feature by name.

    Raises:
        ValueError: if they are no whole numbers of at least 0, or a feature has none.
    """
    if features is None:
        return {}
    named = features if isinstance(features, Mapping) else {str(column): column for column in features}
    found = {str(name): (value,) if isinstance(value, int) else tuple(value) for name, value in named.items()}
    for name, columns in found.items():
        if not columns or any(isinstance(c, bool) or not isinstance(c, int) or c < 0 for c in columns):
            raise ValueError(
                f"expected columns of at least 0, got {columns} for {name!r} in options of 'feature.response'; {_FIX}"
            )
    return found


def _parts() -> dict[str, Part]:
    words = {"zeroed": "set to zero", "flipped": "turned in sign", "alone": "left, all others set to zero"}
    parts = {}
    for how, word in words.items():
        parts[f"accuracy_{how}"] = Part(
            f"Accuracy with a feature {how}", f"Share of the train probe classified right with the feature {word}.",
            unit="share of samples", formula=r"\frac{1}{N}\sum_i 1[\arg\max_c f_c(\tilde x_i) = y_i]",
        )  # fmt: skip
        parts[f"margin_{how}"] = Part(
            f"Margin with a feature {how}", f"By how much the right class leads with the feature {word}, on average.",
            unit="logits", formula=r"\frac{1}{N}\sum_i z_{y_i}(\tilde x_i) - \max_{k \ne y_i} z_k(\tilde x_i)",
            references=(ReferenceLine("classified right", 0.0, "by the definition"),),
        )  # fmt: skip
    return parts


@dataclass
class FeatureResponse(Diagnostic):
    """Accuracy and mean margin on the train probe with one input feature zeroed, flipped in sign, or alone.

    Each part is (K,) with the features' names as keys; accuracies in [0, 1] carry a binomial standard error, margins
    the standard error of the mean, both for the data that the probe was drawn from. Zero is the value that a feature
    is set to, so inputs should be centred. A feature that the network has not learned changes nothing when zeroed or
    flipped, and alone it leaves the accuracy at chance, although it may predict as well as the others: starvation.

    Args:
        features: a column, or several, of the flattened inputs for each feature's name; or a list of columns.
    """

    features: Mapping[str, Columns] | Sequence[int] | None = None

    name = "feature.response"
    title = "Response to single features"
    question = Question.REPRESENTATION
    summary = "Which input features the network uses: accuracy and margin without one, and with nothing else."
    formula = r"f(\tilde x_i),\ \tilde x_{ij} \in \{0, -x_{ij}\}"
    undefined = (
        "No features are named (option features), or columns that the inputs do not have; inputs that are not "
        "floating-point numbers; a model that is called through forward=; outputs that are not (N, C) or hold NaN or "
        "Inf; targets that are not class labels."
    )
    source = (
        "Pezeshki et al. 2021, Gradient Starvation: A Learning Proclivity in Neural Networks; Shah et al. 2020, The "
        "Pitfalls of Simplicity Bias in Neural Networks, section 3 (randomised and single features)"
    )
    needs = Needs.OUTPUTS
    tier = Tier.ON_REQUEST
    interval = 100
    chart = Chart.LINES
    keys = "feature"
    passes = "three forward passes for each feature"
    parts = _parts()

    def __post_init__(self) -> None:
        _columns(self.features)

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return accuracy and margin by feature for each change."""
        features = _columns(self.features)
        if not features:
            raise Missing(f"no features are named; {_FIX}")
        losses = snapshot.input_losses()
        num_columns = min(loss.inputs.flatten(1).shape[1] for loss in losses)
        for name, columns in features.items():
            if max(columns) >= num_columns:
                raise Missing(f"{name!r} has column {max(columns)}, the flattened inputs have {num_columns}")
        found = {}
        for how in CHANGES:
            rows = [_response(losses, columns, how) for columns in features.values()]
            accuracy, margin, errors = zip(*rows, strict=True)
            num = sum(loss.num_samples for loss in losses)
            spread = [share_error(share, num) for share in accuracy]
            found[f"accuracy_{how}"] = _by_feature(accuracy, spread, tuple(features))
            found[f"margin_{how}"] = _by_feature(margin, None if None in errors else errors, tuple(features))
        return found


def _response(losses: Sequence[InputLoss], columns: Sequence[int], how: str) -> tuple[float, float, float | None]:
    """Return accuracy, mean margin and its standard error at changed inputs."""
    with torch.no_grad():
        outputs = [loss.outputs(changed(loss.inputs, columns, how)) for loss in losses]
    leads = []
    for loss, z in zip(losses, outputs, strict=True):
        labels, _ = Evaluation(0.0, z, loss.targets, loss.num_samples).labels()
        if not z.isfinite().all():
            raise Missing("the outputs hold NaN or Inf")
        leads.append((margins(z, labels), z.argmax(1) == labels))
    lead, is_right = (torch.cat(part) for part in zip(*leads, strict=True))
    error = float(lead.std() / len(lead) ** 0.5) if len(lead) > 1 else None
    return float(is_right.double().mean()), float(lead.mean()), error


def _by_feature(values: Sequence[float], errors: Sequence[float | None] | None, names: tuple[str, ...]) -> Reading:
    spread = None if errors is None else torch.tensor(errors, dtype=torch.float64)
    return Reading(torch.tensor(values, dtype=torch.float64), spread, keys=names)
