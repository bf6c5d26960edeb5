"""Which layers grow out of proportion: robust z-scores of log growth among the layers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

OUTLIER_Z = 3.5  # Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993: modified z-scores above 3.5
NORMAL_MAD = 0.6745  # median absolute deviation of a normal distribution with standard deviation 1
MIN_LAYERS = 4  # of fewer, no median tells the odd one


def robust_z(values: np.ndarray) -> np.ndarray:
    """Return 0.6745 (v − median) / MAD, NaN where the MAD is zero.

    >>> robust_z(np.array([1.0, 2.0, 3.0, 4.0, 30.0])).round(2).tolist()
    [-1.35, -0.67, 0.0, 0.67, 18.21]
    """
    centred = np.asarray(values, float) - np.median(values)
    mad = np.median(np.abs(centred))
    return NORMAL_MAD * centred / mad if mad > 0 else np.full(len(centred), np.nan)


def outlier_layers(growth: Mapping[str, float]) -> dict[str, float]:
    """Return the layers that grow out of proportion with their z, the largest first.

    Args:
        growth: ‖θ_l(t)‖ / ‖θ_l(0)‖ by layer; layers without a positive finite growth are left out.

    >>> outlier_layers({"a": 1.01, "b": 1.02, "c": 1.03, "d": 1.04, "head": 4.0}).keys()
    dict_keys(['head'])
    """
    usable = {layer: value for layer, value in growth.items() if np.isfinite(value) and value > 0}
    if len(usable) < MIN_LAYERS:
        return {}
    z = robust_z(np.log(list(usable.values())))
    found = {layer: float(score) for layer, score in zip(usable, z, strict=True) if score > OUTLIER_Z}
    return dict(sorted(found.items(), key=lambda item: -item[1]))
