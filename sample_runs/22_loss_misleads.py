"""Very large steps separate the data sooner while the loss is higher: a rising loss can mean progress.

Claim: on separable data, gradient descent on the logistic loss turns into the perceptron as the step size grows. It
makes no error any more after a handful of steps, though its loss rises far above where it began.

Formula: θ ← θ − η ∇L with L the mean of log(1 + exp(−y f(x))); for η → ∞ only misclassified points count.

Paper: Tyurin 2025, From Logistic Regression to the Perceptron Algorithm: Exploring Gradient Descent with Large Step
Sizes.

Look at: `loss.train` and `accuracy.train` on one axis of steps, and `margin.lowest`, above 0 when all is right.

Falsified by: large steps that do not separate the data in a fifth of the steps that small ones need, or without a loss
twice as high as at the start.
"""

import torch

import trainvitals as tv
from trainvitals.sample_runs.claims import Claim, Runs, course, reached
from trainvitals.sample_runs.parts import descend
from trainvitals.sample_runs.running import alone

ARMS = {f"lr-{rate}": {"learning_rate": float(rate)} for rate in (1, 10, 100_000)}
NUM_SEEDS = 5


def train(seed=0, *, learning_rate=1.0, gap=0.1, weight_decay=0.0, num_steps=250, store="runs/",
          name="loss-misleads") -> tv.Run:  # fmt: skip
    """Separate points of the unit sphere in 20 dimensions, few of them large, `gap` or more from a random plane."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.nn.functional.normalize(torch.randn(20_000, 20, generator=generator) * torch.logspace(0, -1.5, 20))
    side = x @ torch.nn.functional.normalize(torch.randn(20, generator=generator), dim=0)
    x, y = x[side.abs() > gap][:171], (side[side.abs() > gap][:171] > 0).long()
    model, loss = torch.nn.Linear(20, 2, bias=False), torch.nn.functional.cross_entropy
    torch.nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    with tv.watch(model, optimizer, loss=loss, train=(x, y), name=name, store=store, budget=None, every=1, inputs=False,
                  probes=["loss.train", "accuracy.train", "margin"]) as run:  # fmt: skip
        descend(model, optimizer, loss, (x, y), num_steps)
    return tv.open_run(run.path)


def claim(runs: Runs) -> Claim:
    """Steps until no point is misclassified, and the highest loss on the way."""
    steps = {arm: reached(run, "accuracy.train", 1.0) for arm, run in runs.items()}
    losses = {arm: course(run, "loss.train")[1] for arm, run in runs.items()}
    return Claim(
        shown=steps["lr-100000"] < steps["lr-1"] / 5 and losses["lr-100000"].max() > 2 * losses["lr-100000"][0],
        effect=steps["lr-1"] / steps["lr-100000"],
        effect_is="steps until all is right with step size 1 over those with 100,000",
        figures={f"steps until all is right, {arm}": value for arm, value in steps.items()}
        | {f"highest loss, {arm}": float(values.max()) for arm, values in losses.items()},
    )  # fmt: skip


if __name__ == "__main__":
    alone(__file__)
