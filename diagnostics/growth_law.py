"""By which law the weights move away from their start: with the logarithm of the step, or with its root.

Legend: L parameter tensors, t optimiser steps, d(t) = ‖θ(t) − θ(0)‖ over all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Part, Snapshot, Tier
from trainvitals.diagnostics.weight_norms import distance
from trainvitals.schema import Question, Reading, ReferenceLine

# A line through two points always fits; with this many, R² starts to mean something. Our choice.
MIN_POINTS = 8


@dataclass
class LineFit:
    """Least squares of y = a + b x over points that come one by one, without keeping them.

    >>> fit = LineFit()
    >>> for x in (1.0, 2.0, 4.0):
    ...     fit.add(x, 3.0 + 2.0 * x)
    >>> fit.slope, fit.r_squared
    (2.0, 1.0)
    """

    num: int = 0
    _means: tuple[float, float] = (0.0, 0.0)
    _xx: float = 0.0  # Σ (x − x̄)²
    _yy: float = 0.0
    _xy: float = 0.0

    def add(self, x: float, y: float) -> None:
        """Take one more point in (Welford's update, which does not cancel where sums of squares would)."""
        self.num += 1
        dx, dy = x - self._means[0], y - self._means[1]
        self._means = (self._means[0] + dx / self.num, self._means[1] + dy / self.num)
        share = (self.num - 1) / self.num
        self._xx += share * dx * dx
        self._yy += share * dy * dy
        self._xy += share * dx * dy

    @property
    def slope(self) -> float:
        """The slope b. Raises Missing if x does not vary."""
        if not self._xx > 0:
            raise Missing("all points lie at one step")
        return self._xy / self._xx

    @property
    def r_squared(self) -> float:
        """1 − residual over total sum of squares, in [0, 1]. Raises Missing if x or y does not vary."""
        if not self._yy > 0:
            raise Missing("the distance from the start has not changed")
        return min(1.0, self.slope * self._xy / self._yy)


@dataclass
class GrowthLaw(Diagnostic):
    """How well ‖θ(t) − θ(0)‖ follows a + b log t, and how well a + b √t: R² of both fits so far.

    Values in [0, 1], over all trainable tensors and over the points measured since the first step, one point a
    measurement. The larger R² is the better law; both are near 1 on a short stretch, so compare them over
    decades of steps. A schedule of even spacing weighs late steps most: `every="log"` weighs decades alike.
    `details`: the slope b, the number of points, the distance now. Kept between measurements: six sums a
    fit; a run that is taken up again starts anew. No options.

    Source: Hoffer, Hubara, Soudry 2017: d grows as log t in a random walk on a random potential, as √t in a free
    one.
    """

    name: ClassVar = "growth_law"
    title: ClassVar = "Law of the distance from the start"
    question: ClassVar = Question.WEIGHTS
    summary: ClassVar = "Whether the weights diffuse away from their start ultra-slowly (log t) or freely (√t)."
    formula: ClassVar = r"R^2\text{ of } \lVert\theta_t - \theta_0\rVert = a + b\,\log t \text{ or } a + b\,\sqrt{t}"
    undefined: ClassVar = (
        "Fewer than 8 measurements since the first step, the start is not known, or the distance has not changed."
    )
    source: ClassVar = "Hoffer, Hubara, Soudry 2017, Train longer, generalize better, section 3"
    needs: ClassVar = Needs.PARAMETERS
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 50
    references: ClassVar = (ReferenceLine("perfect fit", 1.0, "by the definition"),)
    parts: ClassVar = {
        "r2_log": Part(
            "Fit of the distance to log t", "How well the distance from the start follows the logarithm of the step.",
            formula=r"R^2\text{ of } \lVert\theta_t - \theta_0\rVert = a + b\,\log t",
        ),
        "r2_sqrt": Part(
            "Fit of the distance to √t", "How well the distance from the start follows the root of the step.",
            formula=r"R^2\text{ of } \lVert\theta_t - \theta_0\rVert = a + b\,\sqrt{t}",
        ),
    }  # fmt: skip

    _log: LineFit = field(default_factory=LineFit, init=False, repr=False)
    _sqrt: LineFit = field(default_factory=LineFit, init=False, repr=False)

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return R² of both laws over the points so far."""
        now, start = snapshot.parameters, snapshot.initial_parameters
        d = math.hypot(*distance(now, {name: start[name].to(p.device) for name, p in now.items()}).values())
        if not math.isfinite(d):
            raise Missing("the weights hold NaN or Inf")
        laws: dict[str, tuple[LineFit, Callable[[float], float]]] = {
            "r2_log": (self._log, math.log), "r2_sqrt": (self._sqrt, math.sqrt),
        }  # fmt: skip
        if snapshot.step > 0:
            for fit, of in laws.values():
                fit.add(of(snapshot.step), d)
        if self._log.num < MIN_POINTS:
            raise Missing(f"{self._log.num} measurements since the first step, a fit needs {MIN_POINTS}")
        return {
            part: Reading(fit.r_squared, details={"slope": fit.slope, "num_points": fit.num, "distance": d})
            for part, (fit, _) in laws.items()
        }
