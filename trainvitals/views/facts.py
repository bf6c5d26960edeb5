"""The sentence on top of each page: what the numbers are, said once, without a verdict."""

from __future__ import annotations

import numpy as np
import pandas as pd

from trainvitals.views.growth import OUTLIER_Z, outlier_layers
from trainvitals.views.measured import key_texts
from trainvitals.views.run_view import RunView
from trainvitals.views.words import middle_cut, number, steps


def finite(points: pd.DataFrame) -> pd.DataFrame:
    """Return the points with a finite value."""
    return points.loc[np.isfinite(points["value"].to_numpy(float))]


def best_heldout(view: RunView) -> tuple[int, float] | None:
    """Return the step and the value of the lowest held-out loss, or None when there is none."""
    points = finite(view.points("loss.heldout"))
    if points.empty:
        return None
    best = points.loc[points["value"].astype(float).idxmin()]
    return int(best["step"]), float(best["value"])


def last(view: RunView, name: str) -> tuple[int, float] | None:
    """Return step and value of the last finite point of a number, of a vector's first key, or None."""
    points = finite(view.points(name))
    if points.empty:
        return None
    row = points.loc[points["step"] == points["step"].iloc[-1]].iloc[0]
    return int(row["step"]), float(row["value"])


def overfitting(view: RunView) -> str:
    """Return where the held-out loss was lowest, where it is now, and the gap."""
    best, now, gap = best_heldout(view), last(view, "loss.heldout"), last(view, "gap.loss")
    if best is None or now is None:
        train = last(view, "loss.train")
        if train is None:
            return ""
        return f"Train loss is {number(train[1])} at step {steps(train[0])}; no held-out loss was recorded."
    text = f"Held-out loss was lowest at step {steps(best[0])} ({number(best[1], 3)})"
    if now[0] == best[0]:
        text += ", the last one measured"
    elif best[1] > 0:
        text += f" and is {number(now[1] / best[1], 3)} × that at step {steps(now[0])}"
    else:
        text += f" and is {number(now[1], 3)} at step {steps(now[0])}"
    return text + (f"; the gap to the train loss is {number(gap[1], 3)}." if gap else ".")


def sharpness(view: RunView) -> str:
    """Return λmax, its threshold and the trace."""
    top = last(view, "stability.sharpness") or last(view, "hessian.top")
    if top is None:
        return ""
    text = f"λmax is {number(top[1])} at step {steps(top[0])}"
    ratio, threshold = last(view, "stability.ratio"), last(view, "stability.threshold")
    if ratio and threshold:
        text += f", {number(ratio[1], 3)} × its stability threshold of {number(threshold[1])}"
    trace = last(view, "hessian.trace")
    return text + (f"; the trace is {number(trace[1])}." if trace else ".")


def stability(view: RunView) -> str:
    """Return the largest spike of the loss, and how many samples no longer give a gradient."""
    spikes, parts = finite(view.points("spike")), []
    if not spikes.empty:
        row = spikes.loc[spikes["value"].astype(float).idxmax()]
        parts.append(
            f"largest jump of the train loss at step {steps(int(row['step']))}, "
            f"{number(float(row['value']), 3)} robust standard deviations above its other changes"
        )
    collapsed = last(view, "softmax_collapse")
    if collapsed:
        parts.append(f"{number(100 * collapsed[1], 3)} % of the train samples have a loss of exactly 0")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def gradients(view: RunView) -> str:
    """Return cosine, coherence and noise scale."""
    parts = [
        (last(view, "grad.cosine"), "mean cosine between per-sample gradients {}"),
        (last(view, "grad.coherence"), "coherence {}"),
        (last(view, "grad.noise_scale"), "noise scale {} samples"),
        (last(view, "grad.successive.gradient"), "cosine to the gradient of the step before {}"),
    ]
    said = [words.format(number(found[1], 3)) for found, words in parts if found]
    return f"Last measured: {', '.join(said)}." if said else ""


def representation(view: RunView) -> str:
    """Return how far the four properties of neural collapse have come."""
    parts = []
    for name, words in (("nc1", "NC1"), ("nc3", "NC3"), ("nc4", "NC4")):
        points = finite(view.points(name))
        if not points.empty:
            first, now = (float(points["value"].iloc[i]) for i in (0, -1))
            parts.append(f"{words} went from {number(first, 3)} to {number(now, 3)}")
    return f"{'; '.join(parts)} (0 is full collapse)." if parts else ""


def growth_now(view: RunView) -> dict[str, float]:
    """Return the growth of each layer at the last measured step."""
    points = finite(view.points("weights.norm.growth"))
    points = points.loc[points["step"] == points["step"].max()]
    return dict(zip(key_texts(points), points["value"].astype(float), strict=True))


def weights(view: RunView) -> str:
    """Return the layer that grew most and the layers that grow out of proportion."""
    growth = growth_now(view)
    if not growth:
        return ""
    most = max(growth, key=growth.__getitem__)
    outliers = outlier_layers(growth)
    text = f"{middle_cut(most, 40)} grew most, to {number(growth[most], 3)} × its norm at the start; "
    if not outliers:
        return text + f"none of {len(growth)} layers is out of proportion (robust z of log growth above {OUTLIER_Z})."
    named = ", ".join(f"{middle_cut(layer, 40)} (z = {number(z, 2)})" for layer, z in list(outliers.items())[:3])
    more = f" and {len(outliers) - 3} more" if len(outliers) > 3 else ""
    return text + f"out of proportion to the other layers: {named}{more}."
