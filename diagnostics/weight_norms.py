"""How large the weights are, how far they have moved, and how large a step is beside them.

Legend: L parameter tensors, θ_l one of them, θ_l(0) the same at the start.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Part, Snapshot, Tier, or_missing
from trainvitals.schema import Chart, Question, Reading, ReferenceLine, Scale

_NORMAL_MAD = 0.6745  # median absolute deviation of a normal distribution with standard deviation 1
_MIN_TENSORS = 4  # of fewer, no median tells the odd one


def frobenius(tensor: Tensor) -> float:
    """Return ‖θ‖_F in float64.

    >>> frobenius(torch.tensor([[3.0], [4.0]]))
    5.0
    """
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64))


def norms(tensors: Mapping[str, Tensor]) -> dict[str, float]:
    """Return ‖θ_l‖_F in float64 by name: one copy from the device for all.

    >>> norms({"a": torch.tensor([3.0, 4.0]), "b": torch.ones(4)})
    {'a': 5.0, 'b': 2.0}
    """
    if not tensors:
        return {}
    found = [torch.linalg.vector_norm(tensor, dtype=torch.float64) for tensor in tensors.values()]
    if any(norm.device != found[0].device for norm in found):
        found = [norm.to(found[0].device) for norm in found]
    return dict(zip(tensors, torch.stack(found).tolist(), strict=True))


def growth(now: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> tuple[dict[str, float], list[str]]:
    """Return ‖θ_l‖/‖θ_l(0)‖ by name, and the names that have none because they started at zero."""
    return _growth(norms(now), norms({name: start[name] for name in now}))


def _growth(now: Mapping[str, float], start: Mapping[str, float]) -> tuple[dict[str, float], list[str]]:
    values = {name: norm / start[name] for name, norm in now.items() if start[name] != 0}
    return values, [name for name in now if name not in values]


def _median(values: Iterable[float]) -> float:
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def robust_z(values: Mapping[str, float]) -> dict[str, float]:
    """Return 0.6745 (v − median)/MAD by name: standard scores that one outlier cannot hide by widening the spread.

    Args:
        values: finite numbers by name. The median of an even number is the mean of the middle two.

    Raises:
        Missing: if there are fewer than 4, or more than half of them are equal.

    Source: Iglewicz and Hoaglin 1993, How to Detect and Handle Outliers, section 3.3.

    >>> robust_z({"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0, "e": 30.0})["e"].__round__(2)
    18.21
    """
    if len(values) < _MIN_TENSORS:
        raise Missing(f"{len(values)} tensors have a growth, an outlier needs {_MIN_TENSORS} to stand out from")
    middle = _median(values.values())
    spread = _median(abs(value - middle) for value in values.values())
    if spread == 0:
        raise Missing("more than half of the tensors have grown alike, so that there is no spread to compare with")
    return {name: _NORMAL_MAD * (value - middle) / spread for name, value in values.items()}


def distance(now: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> dict[str, float]:
    """Return ‖θ_l − θ_l(0)‖ by name."""
    return norms({name: _difference(now[name], start[name]) for name in now})


def _difference(now: Tensor, start: Tensor) -> Tensor:
    """Return θ − θ(0) in float64, or in the precision of complex weights."""
    if now.dtype == torch.float64 or now.is_complex():
        return now - start
    return now.double().sub_(start)  # into the copy that `double` has made


def update_ratio(update: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> tuple[dict[str, float], list[str]]:
    """Return ‖Δθ_l‖/‖θ_l(t−1)‖ by name, and the names that have none because they were zero before the step.

    Args:
        update: Δθ_l = θ_l(t) − θ_l(t−1) by name.
        now: θ_l(t) by name.
    """
    before = norms({name: now[name].double() - step for name, step in update.items() if name in now})
    sizes = norms({name: update[name] for name in before})
    values = {name: sizes[name] / norm for name, norm in before.items() if norm != 0}
    return values, [name for name in before if name not in values]


def _by_tensor(values: Mapping[str, float], left_out: list[str] | None = None, why: str = "") -> Reading:
    if not values:
        raise Missing(why)
    array = torch.from_numpy(np.fromiter(values.values(), np.float64, len(values)))
    return Reading(
        value=array, keys=tuple(values), details={"left_out": dict.fromkeys(left_out, why)} if left_out else {}
    )  # fmt: skip


def _outliers(grown: Mapping[str, float], names: Iterable[str]) -> Reading:
    logs = {name: math.log(g) for name, g in grown.items() if 0 < g < math.inf}
    left_out = [name for name in names if name not in logs]
    return _by_tensor(robust_z(logs), left_out, "it has no growth above 0")


@dataclass
class WeightNorms(Diagnostic):
    """Frobenius norm of each parameter tensor, its growth and its distance since the start of the run.

    Each part is (L,) in the order of the parameters, exact. A tensor that started at zero (a bias, often)
    has no growth: it is left out, and `details["left_out"]` names it. Weights with NaN give NaN. `outlier`
    tells which tensors grow out of proportion: the robust z-score of log growth among the tensors that have
    one, 0.6745 (log g_l − median)/MAD, above 0 where a tensor grows more than the middle one.

    Args:
        reference: parameters of the start by name, as a `state_dict`; it must hold every trainable
            parameter in its shape. None (default): the weights when the run began, if it is known.
    """

    reference: Mapping[str, Tensor] | None = None

    _norms_at_start: dict[str, float] | None = field(default=None, init=False, repr=False, compare=False)

    name = "weights.norm"
    title = "Weight norms"
    question = Question.WEIGHTS
    summary = "How large each parameter tensor is, and how it has moved since the start."
    formula = r"\lVert\theta_l\rVert_F"
    unit = "norm of weights"
    undefined = (
        "Growth, outlier and distance: the start is not known. Growth: the tensor was zero at the start. "
        "Outlier: fewer than 4 tensors have a growth, or more than half of them the same."
    )
    source = (
        "Neyshabur, Bhojanapalli, McAllester, Srebro 2017, Exploring Generalization in Deep Learning "
        "(norms); Hoffer, Hubara, Soudry 2017, Train longer, generalize better (distance from the start)"
    )
    needs = Needs.PARAMETERS
    tier = Tier.LIGHT
    interval = 10
    chart = Chart.HEATMAP
    scale = Scale.LOG
    keys = "parameter"
    parts = {
        "value": Part("Weight norm per layer", "How large each parameter tensor is."),
        "growth": Part(
            "Growth of the weight norm",
            "How many times larger each parameter tensor is than at the start: 1 is unchanged.",
            unit="1",
            formula=r"\lVert\theta_l(t)\rVert / \lVert\theta_l(0)\rVert",
            references=(ReferenceLine("unchanged", 1.0, "by the definition"),),
        ),
        "distance": Part(
            "Distance from the start",
            "How far each parameter tensor has moved since the start.",
            formula=r"\lVert\theta_l(t) - \theta_l(0)\rVert_F",
            scale=Scale.LINEAR,  # it starts at zero
        ),
        "outlier": Part(
            "Layers that grow out of proportion",
            "Robust z-score of each tensor's log growth among all: far from 0 stands out from the others.",
            unit="1",
            formula=r"0.6745\,(\log g_l - \mathrm{median}) / \mathrm{MAD},\ "
            r"g_l = \lVert\theta_l(t)\rVert / \lVert\theta_l(0)\rVert",
            scale=Scale.LINEAR,
            references=(ReferenceLine("outlier", 3.5, "Iglewicz, Hoaglin 1993, How to Detect and Handle Outliers"),),
        ),
    }

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return norms, growth, distance and outlier scores."""
        now = snapshot.parameters
        sizes = norms(now)
        value = _by_tensor(sizes, why="the model has no parameters")
        try:
            start = self._start(snapshot)
        except Missing as reason:
            return {"value": value, **dict.fromkeys(("growth", "distance", "outlier"), Reading.absent(str(reason)))}
        if self._norms_at_start is None or self._norms_at_start.keys() != start.keys():  # layers may thaw
            self._norms_at_start = norms(start)
        grown, left_out = _growth(sizes, self._norms_at_start)
        return {
            "value": value,
            "growth": or_missing(lambda: _by_tensor(grown, left_out, "its norm was 0 at the start")),
            "distance": _by_tensor(distance(now, start)),
            "outlier": or_missing(lambda: _outliers(grown, sizes)),
        }

    def _start(self, snapshot: Snapshot) -> Mapping[str, Tensor]:
        given = self.reference is not None
        start = self.reference if self.reference is not None else snapshot.initial_parameters
        parameters = snapshot.parameters
        for name, parameter in parameters.items():
            found = start.get(name)
            if found is None or found.shape != parameter.shape:
                where = "the option reference of weights.norm" if given else "the model at the start of the run"
                what = "nothing" if found is None else f"shape {tuple(found.shape)}"
                raise Missing(f"{where} has {what} for {name!r}, expected shape {tuple(parameter.shape)}")
        return {name: start[name].to(p.device) for name, p in parameters.items()}


@dataclass
class UpdateRatio(Diagnostic):
    """‖Δθ_l‖/‖θ_l‖ of the last training step, ‖θ_l‖ taken before it, for each parameter tensor.

    Value (L,) in the order of the parameters, exact up to the rounding of θ(t) − θ(t−1). A tensor that was
    zero before the step has none: it is left out, and `details["left_out"]` names it. No options.
    """

    name = "update.ratio"
    title = "Update-to-weight ratio per layer"
    question = Question.WEIGHTS
    summary = "How large the last step was beside the weights it changed."
    formula = r"\lVert\Delta\theta_l\rVert / \lVert\theta_l\rVert"
    undefined = "Before the first training step, outside a watched run, or when every tensor was zero before the step."
    source = "Karpathy, CS231n notes, Neural Networks Part 3, section Ratio of weights:updates (rule of thumb 1e-3)"
    needs = Needs.TRAJECTORY | Needs.PARAMETERS
    tier = Tier.DEFAULT
    interval = 20
    chart = Chart.HEATMAP
    scale = Scale.LOG
    keys = "parameter"
    references = (ReferenceLine("rule of thumb", 1e-3, "Karpathy, CS231n notes, Ratio of weights:updates"),)

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return one ratio per parameter tensor."""
        values, left_out = update_ratio(snapshot.trajectory.update, snapshot.parameters)
        return _by_tensor(values, left_out, "it was 0 before the step")
