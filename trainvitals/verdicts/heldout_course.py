"""The course of the held-out loss against its own best, and the train loss beside it.

The probes' losses come first, the user's own logs where those are missing. Everything looks back only.

Legend: n points of the held-out loss.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from trainvitals.verdicts.noise import running_median
from trainvitals.verdicts.run_facts import RunFacts, Unmeasured
from trainvitals.verdicts.series import Floats, Ints, Series

PROBE_TRAIN, PROBE_HELDOUT = "loss.train", "loss.heldout"
# Names that scripts log losses under, the usual separators aside. Our choice.
_TRAIN_WORDS = ("train", "training", "tr", "")
_HELDOUT_WORDS = ("val", "valid", "validation", "eval", "dev", "heldout", "held_out", "test")
SMOOTH = 5  # points of the running median
_NOISE_POINTS = 40  # second differences that the noise is told from
_MAD_OF_SECOND_DIFFERENCE = 0.6745 * np.sqrt(6)


@dataclass(frozen=True, eq=False)
class HeldoutCourse:
    """The held-out loss, its best so far, and the train loss at the same steps."""

    loss: Series  # as measured
    train: Series  # as measured, at its own steps

    @cached_property
    def smooth(self) -> Floats:
        """The running median, (n,)."""
        return running_median(self.loss.value, SMOOTH)

    @cached_property
    def best_index(self) -> Ints:
        """The index of the smallest smooth loss so far, (n,)."""
        best = np.minimum.accumulate(self.smooth)
        index = np.arange(len(best))
        return np.maximum.accumulate(np.where(self.smooth <= best, index, 0))

    @cached_property
    def best(self) -> Floats:
        """The smallest smooth loss so far, (n,)."""
        return self.smooth[self.best_index]

    @cached_property
    def rise(self) -> Floats:
        """How far it stands above its best so far, (n,)."""
        return self.smooth - self.best

    @cached_property
    def fall(self) -> Floats:
        """How far it had come down from its first value at its best so far, (n,)."""
        return np.maximum(self.loss.value[0] - self.best, 0.0)

    @cached_property
    def noise(self) -> Floats:
        """The deviation from point to point, from second differences of the last points, (n,)."""
        second = np.abs(np.diff(self.loss.value, 2))
        if not len(second):
            return np.zeros(len(self.loss))
        return np.concatenate([[0.0, 0.0], running_median(second, _NOISE_POINTS)]) / _MAD_OF_SECOND_DIFFERENCE

    @cached_property
    def train_fall(self) -> Floats:
        """The share of the train loss at the held-out loss's best that has gone since then, (n,); NaN before it."""
        per_point = len(self.train) // max(len(self.loss), 1)  # a loss logged at each step is a noisy one
        smooth = self.train.with_values(running_median(self.train.value, max(SMOOTH, per_point)))
        at = smooth.at(self.loss.step)
        then = at[self.best_index]
        return 1 - at / np.where(np.abs(then) > 0, then, np.nan)

    @property
    def turn_step(self) -> int:
        """The step at which the loss was lowest: of the mean over neighbouring points, on both sides."""
        half = SMOOTH // 2 if len(self.loss) >= 4 * SMOOTH else 1
        padded = np.pad(self.loss.value, half, mode="edge")
        mean = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1).mean(1)
        return int(self.loss.step[np.argmin(mean)])


def heldout_course(run: RunFacts, num_points: int = 8) -> HeldoutCourse:
    """Return the course of the held-out loss.

    Raises:
        Unmeasured: if a held-out or a train loss was neither measured nor logged often enough.
    """
    heldout = _first(run, (PROBE_HELDOUT, *_logged(run, _HELDOUT_WORDS)), num_points)
    train = _first(run, (PROBE_TRAIN, *_logged(run, _TRAIN_WORDS)), num_points)
    missing = [run.why_missing(name, len(run.series(name)), num_points)
               for name, found in ((PROBE_HELDOUT, heldout), (PROBE_TRAIN, train)) if found is None]  # fmt: skip
    if heldout is None or train is None:
        raise Unmeasured(*missing)
    return HeldoutCourse(heldout, train)


def _logged(run: RunFacts, words: Iterable[str]) -> list[str]:
    """Return the names of the run that say "train loss" or "held-out loss" in one of the usual ways."""
    wanted = {form for word in words for form in _forms(word)}
    return sorted(name for name in run.names if name.lower().replace("/", "_").replace(".", "_") in wanted)


def _forms(word: str) -> tuple[str, ...]:
    """Return the ways in which a loss is named.

    >>> _forms("val")
    ('val_loss', 'loss_val', 'valloss')
    """
    return (f"{word}_loss", f"loss_{word}", f"{word}loss") if word else ("loss", "batch_loss", "running_loss")


def _first(run: RunFacts, names: Iterable[str], num_points: int) -> Series | None:
    found = (run.series(name) for name in names)
    return next((series for series in found if len(series) >= num_points), None)
