"""The stronger an easy feature is, the less a network learns from another one that would do as well.

Claim: once an easy feature has brought the loss down, the gradient that a second predictive feature needs is gone, so
that the second is hardly learned. Train accuracy is perfect all along and does not show it.

Formula: x₁ = s·y + 0.2 ε₁, x₂ = 0.5·y + 0.2 ε₂; s is the strength of the easy feature.

Paper: Pezeshki, Kaba, Bengio, Courville, Precup, Lajoie 2021, Gradient Starvation: A Learning Proclivity in Neural
Networks.

Look at: `feature.response.margin_alone` of the feature `other`: what the network says of the second feature alone, for
growing s; accuracy stays at 1.

Falsified by: a margin from the second feature that does not fall as the first grows stronger.
"""

import torch

import trainvitals as tv
from trainvitals.sample_runs.claims import Claim, Runs, last
from trainvitals.sample_runs.parts import descend, mlp
from trainvitals.sample_runs.running import alone

ARMS = {f"strength-{s:g}": {"strength": s} for s in (0.0, 0.5, 1.0, 4.0)}


def train(seed=0, *, strength=1.0, learning_rate=0.05, weight_decay=0.0, width=100, num_steps=1500, store="runs/",
          name="gradient-starvation") -> tv.Run:  # fmt: skip
    """Train on 400 points in two dimensions, full batch."""
    torch.manual_seed(seed)
    y = torch.arange(400) % 2
    x = (2 * y[:, None] - 1) * torch.tensor([strength, 0.5]) + 0.2 * torch.randn(400, 2)
    model, loss = mlp(2, width, 2), torch.nn.functional.cross_entropy
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    with tv.watch(model, optimizer, loss=loss, train=(x, y), name=name, store=store, budget=None, every=50,
                  inputs=False, probes={"loss.train": {}, "accuracy.train": {},
                                        "feature.response": {"features": {"easy": 0, "other": 1}}}) as run:  # fmt: skip
        descend(model, optimizer, loss, (x, y), num_steps)
    return tv.open_run(run.path)


def claim(runs: Runs) -> Claim:
    """The margin and the accuracy from the second feature alone."""
    margins = {arm: last(run, "feature.response.margin_alone", "other") for arm, run in runs.items()}
    alone_right = {arm: last(run, "feature.response.accuracy_alone", "other") for arm, run in runs.items()}
    values = list(margins.values())
    return Claim(
        shown=values == sorted(values, reverse=True) and values[-1] < 0.2 * values[0]
        and min(last(run, "accuracy.train") for run in runs.values()) > 0.98,
        effect=values[-1] / values[0],
        effect_is="margin from the second feature alone, strength 4 over strength 0",
        figures={f"margin alone, {arm}": value for arm, value in margins.items()}
        | {f"accuracy alone, {arm}": value for arm, value in alone_right.items()},
    )  # fmt: skip


if __name__ == "__main__":
    alone(__file__)
