"""The mean of the last checkpoints against the best one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from trainvitals.checkpoints.bench import Bench
from trainvitals.checkpoints.finding import Checkpoint
from trainvitals.checkpoints.fitting import put
from trainvitals.checkpoints.paths.at_a_point import add, loss_here
from trainvitals.checkpoints.paths.base import Part, PathMetric, Readings, described
from trainvitals.schema import Description, Reading

NUM_AVERAGED = 5
_SOURCE = (
    "Wortsman et al. 2022, Model soups, section 2 (uniform soup); of one run's last checkpoints: Kaddour 2022, "
    "Stop Wasting My Time! (LAWA)"
)


@dataclass(frozen=True)
class Average:
    """The loss at the mean of checkpoints, and at each of them."""

    members: tuple[Checkpoint, ...]

    def __call__(self, bench: Bench) -> dict[str, Any]:
        """Return the losses; one checkpoint and the sum are in memory."""
        heldout = bench.subject.heldout is not None
        total: dict[str, Tensor] = {}
        losses = []
        for checkpoint in self.members:
            weights = bench.weights(checkpoint)
            put(bench.subject.model, weights.items())
            losses.append(bench.loss(heldout))
            add(total, weights, 1.0)
            del weights  # before the next one is read
        mean = {name: tensor.div_(len(self.members)) for name, tensor in total.items()}
        put(bench.subject.model, mean.items())
        return {"soup": loss_here(bench, heldout=heldout), "members": losses, "heldout": heldout}


class Soup(PathMetric):
    """`path.soup`: at every checkpoint, the mean of it and those before it.

    Args:
        num: how many checkpoints are averaged, fewer at the beginning.
    """

    name: ClassVar = "path.soup"

    def __init__(self, num: int = NUM_AVERAGED) -> None:
        if isinstance(num, bool) or not isinstance(num, int) or num < 2:
            raise ValueError(
                f"expected a whole number of at least 2, got num={num!r} in options of 'path.soup'; leave it out for 5"
            )
        self._num = num
        self._members: list[tuple[Checkpoint, ...]] = []

    def works(self, checkpoints: Sequence[Checkpoint]) -> list[Part]:
        """Return an average for each checkpoint but the first."""
        self._members = [tuple(checkpoints[max(0, i + 1 - self._num) : i + 1]) for i in range(1, len(checkpoints))]
        return [Part(Average(members), members[-1].step, "path.soup.loss") for members in self._members]

    def arrived(self, index: int, result: Any) -> Readings:
        """Return the loss of the mean, and by how much it is better than the best."""
        members, losses = self._members[index], result["members"]
        best = min(range(len(losses)), key=lambda i: losses[i])
        details = {
            "num": len(members), "best_step": members[best].step, "best_loss": losses[best],
            "probe": "held-out" if result["heldout"] else "train",
        }  # fmt: skip
        return {members[-1].step: {
            "path.soup.loss": Reading(result["soup"], details=details),
            "path.soup.gain": Reading(losses[best] - result["soup"], details=details),
        }}  # fmt: skip

    @classmethod
    def descriptions(cls) -> dict[str, Description]:
        """Return what is recorded."""
        undefined, cost = "The first checkpoint.", "forward passes over the probe"
        loss = described(
            "path.soup.loss", "Loss of the mean of the last checkpoints",
            "The loss at the mean of the last five checkpoints, on the held-out probe where there is one.",
            formula=r"L\bigl(\tfrac1k\sum_{i>t-k}\theta_i\bigr)", unit="loss", undefined=undefined, source=_SOURCE,
            cost=cost,
        )  # fmt: skip
        gain = described(
            "path.soup.gain", "Gain of averaging checkpoints",
            "By how much the mean of the last checkpoints is better than the best of them: above 0, averaging pays.",
            formula=r"\min_{i>t-k} L(\theta_i) - L\bigl(\tfrac1k\sum_{i>t-k}\theta_i\bigr)", unit="loss",
            undefined=undefined, source=_SOURCE, cost=cost,
        )  # fmt: skip
        return {loss.name: loss, gain.name: gain}
