"""Where a loss leaps up and comes back: isolated peaks that stand out from its own noise and recover.

Legend: n points.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.ndimage import median_filter

from trainvitals.verdicts.series import Floats, Ints, Series

WINDOW = 21  # points before, whose median is the level that a peak stands out from
_Z = 8.0  # robust deviations of the noise before: 1e-14 of normal noise, and room for the heavy tails of real ones
_RISE = np.log(2.0)  # at least, of log loss
_BACK = 0.5  # of the height: so far it must come down again to have recovered
_FAR = 5.0  # times the loss of guessing: whatever the noise, a net that had learned does not go there
_COMMON = 0.03  # of the points: peaks that are more common than that are the noise of the series


class Spike(NamedTuple):
    """A peak of a loss that recovered."""

    step: int  # of its first point
    recovered: int  # step at which it was back
    height: float  # largest loss over the level before
    at: int  # the index of its first point


def find_spikes(loss: Series, reference: float, *, is_batch: bool = False) -> list[Spike]:
    """Return the isolated spikes of a positive loss.

    A point belongs to a spike if its log stands out by 8 robust deviations from the median of the 21 points before,
    or if it is five times worse than guessing where that level was better; and if it is twice that level, and above
    it by 2 % of the reference. It must come back within 21 points: what stays up is a change of level, of another
    task or of a run that diverged. What happens at more than 3 % of the points is noise.

    Args:
        loss: positive values at steps.
        reference: the loss of having learned nothing.
        is_batch: the loss is that of changing batches: a single point that stands out may be a hard batch, unless it
            is five times worse than guessing, or three are worse at all; two in a row are the model.
    """
    if len(loss) < WINDOW:
        return []
    log_loss = np.log(np.maximum(loss.value, 1e-12 * reference))
    level = _level_before(log_loss)
    rise = log_loss - level
    noise = _noise_before(rise)
    stands_out = (rise > _Z * noise) | ((loss.value > _FAR * reference) & (np.exp(level) < reference))
    high = stands_out & (rise > _RISE) & (loss.value - np.exp(level) > 0.02 * reference)
    high[:WINDOW] = False  # the noise is not known yet
    lasts = np.append(high[1:], False) | np.insert(high[:-1], 0, False)
    if is_batch:
        high &= lasts | (loss.value > 1.5 * reference)
    found = list(_grouped(loss, log_loss, level, np.flatnonzero(high)))
    if is_batch and sum(not lasts[spike.at] for spike in found) < 3:
        found = [spike for spike in found if lasts[spike.at] or loss.value[spike.at] > _FAR * reference]
    return [] if len(found) > max(3, _COMMON * len(loss)) else found


def batches(before: int, step: int) -> str:
    """Return which batches to look at for what a measurement at a step shows and the one before it does not.

    >>> batches(181, 182), batches(170, 180)
    ('the batches of steps 181 and 182', 'the batches from step 170 to step 180')
    """
    if step - before <= 1:
        return f"the batches of steps {before:,} and {step:,}" if before < step else f"the batch of step {step:,}"
    return f"the batches from step {before:,} to step {step:,}"


def _level_before(y: Floats) -> Floats:
    """Return the median of the `WINDOW` points before each, (n,); of those that there are at the beginning."""
    middle = median_filter(y, size=WINDOW, mode="nearest", origin=WINDOW // 2)  # of a point and those before it
    return np.concatenate([y[:1], middle[:-1]])


def _noise_before(rise: Floats) -> Floats:
    """Return the robust deviation of the rises among the 2·`WINDOW` + 1 points before each, (n,).

    It is taken from their own median, which is not 0 where the loss falls.
    """
    width = 2 * WINDOW + 1
    around = median_filter(rise, size=width, mode="nearest", origin=width // 2)
    middle = median_filter(np.abs(rise - around), size=width, mode="nearest", origin=width // 2) / 0.6745
    return np.maximum(np.concatenate([middle[:1], middle[:-1]]), 0.01)


def _grouped(loss: Series, log_loss: Floats, level: Floats, high: Ints) -> Iterator[Spike]:
    """Yield the spikes that the high points make up, each from its first to where it is back."""
    end = -1
    for i in high:
        if i <= end:
            continue
        window = log_loss[i : i + WINDOW]
        limit = level[i] + _BACK * (float(window.max()) - level[i])
        peak = int(np.argmax(window))
        back = np.flatnonzero(window[peak:] < limit)
        if len(back):
            end = i + peak + int(back[0])
            yield Spike(int(loss.step[i]), int(loss.step[end]), float(np.exp(window.max() - level[i])), int(i))
        else:
            end = i + WINDOW
