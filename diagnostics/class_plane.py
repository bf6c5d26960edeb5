"""Class means and features seen on one plane: the geometry behind the numbers of neural collapse.

Legend: N samples, C classes, D features, M the centred class means (C, D), V the plane's axes (D, 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Snapshot, Tier
from trainvitals.diagnostics.feature_layers import FeatureView, view_of
from trainvitals.diagnostics.neural_collapse import ClassStatistics, classifier_weight, statistics
from trainvitals.schema import Chart, Question, Reading

_MAX_SAMPLES = 300  # kept for the picture, evenly spread over the probe
_SINGLE = 1e-10  # share of the second axis below which the class means lie on a line


def plane(stats: ClassStatistics) -> tuple[Tensor, Tensor]:
    """Return the plane's axes V (D, 2) and the share of the spread of the class means along each (2,).

    They are the first two principal axes of the class means. Where those lie on a line, as two classes do, the second
    is the principal axis of the features within the classes, at a right angle to it. Each axis points to the side of
    the first class that is not in its middle, so that a picture does not flip between two steps.

    Raises:
        Missing: if there is only one feature, or the class means coincide.

    >>> M = torch.tensor([[2.0, 0.0, 0.0], [-2.0, 0.0, 0.0]])
    >>> stats = ClassStatistics(M[0], M, torch.tensor([[0.0, 0.0, 1.0]]), M[0], torch.tensor([0]), 1e-7)
    >>> (plane(stats)[0].T + 0.0).tolist(), plane(stats)[1].tolist()
    ([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], [1.0, 0.0])
    """
    M = stats.centred_means
    if M.shape[1] < 2:
        raise Missing("one feature: there is no plane in it")
    _, s, Vt = torch.linalg.svd(M, full_matrices=False)
    if not float(s[0]) > stats.resolution * float(stats.centre.norm()):
        raise Missing("the class means coincide")
    shares = s.square() / s.square().sum()
    first, second = Vt[0], Vt[min(1, len(Vt) - 1)]
    if len(s) < 2 or float(shares[1]) < _SINGLE:
        second = _second(stats.deviations, first)
        shares = torch.stack([shares[0], torch.zeros_like(shares[0])])
    V = torch.stack([first, second], 1)
    places = M @ V  # (C, 2)
    far = places.abs() > 1e-6 * places.abs().amax(0)
    signs = torch.stack([places[int(far[:, k].double().argmax()), k].sign() for k in (0, 1)])
    return V * torch.where(signs == 0, torch.ones_like(signs), signs), shares[:2]


def _second(deviations: Tensor, first: Tensor) -> Tensor:
    """Return the principal axis (D,) of the deviations (N, D) at a right angle to a unit vector (D,)."""
    rest = deviations - (deviations @ first)[:, None] * first
    axis = torch.linalg.svd(rest, full_matrices=False).Vh[0] if float(rest.norm()) > 0 else torch.zeros_like(first)
    axis = axis - (axis @ first) * first
    if float(axis.norm()) < 0.5:  # nothing is left within the classes: any axis at a right angle
        axis = torch.zeros_like(first)
        axis[int(first.abs().argmin())] = 1.0
        axis = axis - (axis @ first) * first
    sign = axis[int(axis.abs().argmax())].sign()
    return sign * axis / axis.norm()


@dataclass
class ClassPlane(Diagnostic):
    """The centred class means on their own principal plane, with the samples' features on it.

    Value (C, 2), exact on the probe: ⟨μ_c − μ_G, v_k⟩ for the first two principal axes v_k of the class means. Details,
    as NumPy arrays that a run keeps: `x`, `y` and `labels` (n,), the features h_i − μ_G on the plane, of at most 300
    samples spread evenly over the probe; `shares` (2,), which part of the means' spread each axis holds; `rows_x` and
    `rows_y` (C,), the classifier's centred rows on the plane at the Frobenius norm of the means, where there is such a
    classifier. The axes are those of this step: two steps have different planes. No options.

    Source: Papyan, Han, Donoho 2020, figure 1 (means, features and classifier as they move to a simplex).
    """

    name: ClassVar = "nc.plane"
    title: ClassVar = "Class means and features on a plane"
    question: ClassVar = Question.REPRESENTATION
    summary: ClassVar = "Where the classes lie in the features of the last layer, and how tightly: under collapse " \
                        "every class is one point, and all lie equally far apart."  # fmt: skip
    formula: ClassVar = r"V^\top (h_i - \mu_G),\quad V = \text{first two principal axes of } \{\mu_c\}"
    unit: ClassVar = "unit of the features"
    undefined: ClassVar = "Fewer than 2 classes or features, a class absent from the probe, or means that coincide."
    source: ClassVar = (
        "Papyan, Han, Donoho 2020, Prevalence of neural collapse during the terminal phase of deep learning training, "
        "figure 1"
    )
    needs: ClassVar = Needs.FEATURES | Needs.OUTPUTS
    tier: ClassVar = Tier.DEFAULT
    interval: ClassVar = 100
    group: ClassVar = "nc"
    chart: ClassVar = Chart.PLANE
    keys: ClassVar = "class"

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the class means on the plane, with the features."""
        view = view_of(snapshot)
        stats = view.once(statistics)
        V, shares = plane(stats)
        M = stats.centred_means
        num_samples = len(stats.labels)
        kept = torch.linspace(0, num_samples - 1, min(num_samples, _MAX_SAMPLES), dtype=torch.float64).round().long()
        kept = kept.to(stats.labels.device)
        labels = stats.labels[kept]
        points = (stats.deviations[kept] + M[labels]) @ V
        x, y = points.float().cpu().numpy().T
        details = {"x": x, "y": y, "labels": labels.cpu().numpy(), "shares": shares.cpu().numpy(), **_rows(view, M, V)}
        return Reading((M @ V).cpu(), keys=tuple(str(c) for c in range(len(M))), details=details)


def _rows(view: FeatureView, M: Tensor, V: Tensor) -> dict[str, np.ndarray]:
    """Return the classifier's rows on the plane at the scale of the means; nothing without such a classifier."""
    try:
        W = classifier_weight(view, M.shape).double()
    except Missing:
        return {}
    W = W - W.mean(0)
    if not float(W.norm()) > 0:
        return {}
    x, y = (W @ V * (M.norm() / W.norm())).cpu().numpy().T
    return {"rows_x": x, "rows_y": y}
