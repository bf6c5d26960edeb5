"""Before a norm layer weight decay sets no penalty but a learning rate: weights of any size end at the same one.

Claim: what a layer computes before BatchNorm does not depend on the size of its weights, so that decay cannot make the
function simpler. It shrinks the weights until their effective learning rate has the value that decay and learning rate
prescribe, whatever it was at the start. Without decay it stays where the start has put it.

Formula: effective learning rate = η/‖w‖² of a layer.

Paper: van Laarhoven 2017, L2 Regularization versus Batch and Weight Normalization.

Look at: `effective_lr` and `weights.norm.value` of the four runs: with decay two of them meet that start 25 times
apart.

Falsified by: effective learning rates with decay that end more than a factor of three apart, or those without that
end less than a factor of five apart.
"""

from functools import partial

import torch

import trainvitals as tv
from trainvitals.sample_runs.claims import Claim, Runs
from trainvitals.sample_runs.parts import descend, digits, mlp
from trainvitals.sample_runs.running import alone

ARMS = {
    "decay": {"weight_decay": 5e-3}, "decay-large-start": {"weight_decay": 5e-3, "scale": 5.0},
    "none": {"weight_decay": 0.0}, "none-large-start": {"weight_decay": 0.0, "scale": 5.0},
}  # fmt: skip
NUM_TRAIN = 1000


def train(seed=0, *, weight_decay=5e-3, scale=1.0, learning_rate=0.05, width=128, batch_size=64, num_steps=2000,
          store="runs/", name="scale-invariant-weights") -> tv.Run:  # fmt: skip
    """Train a network with BatchNorm on 1,000 digits, from weights that are `scale` times the usual."""
    data = digits(NUM_TRAIN, seed)
    torch.manual_seed(seed)
    model = mlp(64, width, width, 10, norm=partial(torch.nn.BatchNorm1d, affine=False))
    with torch.no_grad():
        model[3].get_parameter("weight").mul_(scale)  # between the two norm layers
    loss = torch.nn.functional.cross_entropy
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9, weight_decay=weight_decay)
    with tv.watch(model, optimizer, loss=loss, train=data.train, heldout=data.test, name=name, store=store, budget=None,
                  every=50, inputs=False, probes=["effective_lr", "weights.norm", "loss.train", "accuracy.heldout"],
                  ) as run:  # fmt: skip
        descend(model, optimizer, loss, data.train, num_steps, batch_size=batch_size, seed=seed)
    return tv.open_run(run.path)


def rate(run: tv.Run, *, at_start: bool = False) -> float:
    """Return the effective learning rate of the middle layer: the first measured, or the mean of the last ten."""
    points = run.series("effective_lr")
    values = points[points["key"].str.startswith("3")]["value"]
    return float(values.iloc[0] if at_start else values.iloc[-10:].mean())


def claim(runs: Runs) -> Claim:
    """How far apart the effective learning rates of usual and large start are, at the start and at the end."""
    start = rate(runs["decay"], at_start=True) / rate(runs["decay-large-start"], at_start=True)
    ends = {arm: rate(runs[arm]) / rate(runs[f"{arm}-large-start"]) for arm in ("decay", "none")}
    return Claim(
        shown=1 / 3 < ends["decay"] < 3 and ends["none"] > 5,
        effect=ends["decay"],
        effect_is="effective learning rate from the usual start over that from the large one, at the end, with decay",
        figures={"the same at the start": start, "the same at the end without decay": ends["none"]}
        | {f"effective learning rate at the end, {arm}": rate(run) for arm, run in runs.items()},
    )


if __name__ == "__main__":
    alone(__file__)
