"""At the edge of stability a few samples carry the change of the loss, and they pull in opposite directions.

Claim: training finds a narrow valley between groups of samples with large, opposed gradients. Once the sharpness is at
the edge, those whose loss rises most and those whose loss falls most in one step have opposed gradients.

Formula: cos(∇L_rose, ∇L_fell) of the 2.5 % of the samples whose loss rose and fell most in the step.

Paper: Rosenfeld, Risteski 2024, Outliers with Opposing Signals Have an Outsized Effect on Neural Network Optimization.

Look at: `loss.movers.cosine` and `loss.movers.share` beside `stability.ratio`; *Which samples?* shows the pictures.

Falsified by: a cosine at the edge that is above −0.3, or a share that is no larger than before the edge.
"""

import numpy as np
import torch

import trainvitals as tv
from trainvitals.sample_runs.claims import Claim, Runs, course, last
from trainvitals.sample_runs.parts import descend, digits, half_squared_error, mlp
from trainvitals.sample_runs.running import alone

ARMS = {"full-batch": {}}
EARLY, LATE = 600, 2000  # before the edge, and after it was reached


def train(seed=0, *, learning_rate=0.1, weight_decay=0.0, width=100, num_steps=3000, store="runs/",
          name="opposing-signals") -> tv.Run:  # fmt: skip
    """Train a tanh network on 800 digits by full-batch descent on the squared error."""
    data = digits(800, seed)
    torch.manual_seed(seed)
    model = mlp(64, width, 10, activation=torch.nn.Tanh)
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    pairs = tv.at_steps([step + i for step in range(100, num_steps, 100) for i in (0, 1)])  # one step apart
    with tv.watch(model, optimizer, loss=half_squared_error, train=data.train, name=name, store=store, budget=None,
                  inputs=False, probes=["loss.train", "loss.movers", "stability"],
                  every={"loss.train": 10, "loss.movers": pairs, "stability": 200}) as run:  # fmt: skip
        descend(model, optimizer, half_squared_error, data.train, num_steps)
    return tv.open_run(run.path)


def one_step(run: tv.Run, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return what was measured over a single step: every second measurement."""
    steps, values = course(run, name)
    return steps[steps % 100 == 1], values[steps % 100 == 1]


def claim(runs: Runs) -> Claim:
    """Cosine and share before the edge and at it."""
    run = runs["full-batch"]
    steps, cosines = one_step(run, "loss.movers.cosine")
    at, shares = one_step(run, "loss.movers.share")
    late = float(cosines[steps > LATE].mean())
    before, after = float(shares[at < EARLY].mean()), float(shares[at > LATE].mean())
    return Claim(
        shown=late < -0.3 and after > before,
        effect=late,
        effect_is="cosine of the two groups' gradients at the edge",
        figures={
            "cosine before the edge": float(cosines[steps < EARLY].mean()),
            "share of the change before the edge": before,
            "share of the change at the edge": after, "even share": 0.05,
            "sharpness over the threshold at the end": last(run, "stability.ratio", mean_of=3),
        },
    )  # fmt: skip


if __name__ == "__main__":
    alone(__file__)
