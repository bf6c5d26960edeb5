"""The test error peaks where the features are as many as the samples, and only if training goes on long enough.

Claim: with random features the test error rises towards width = number of samples and falls beyond it, a second
descent. The peak is one of optimisation: gradient descent that is stopped early never sees it, because only the
directions of tiny curvature, which take very long, spoil the fit.

Formula: gradient descent after t steps fits direction k by a share 1 − (1 − ηλ_k)^t of least squares.

Paper: Belkin, Hsu, Ma, Mandal 2019, Reconciling modern machine-learning practice and the classical bias-variance
trade-off; Guigui et al. 2024, Understanding the Role of Optimization in Double Descent.

Look at: `loss.heldout` of runs of different width at the same step. One optimiser step multiplies the time that
gradient descent has had by ten, in closed form: step 2 is a hundred steps of descent, step 9 a thousand million.
`features.condition` says where the tiny directions are.

Falsified by: a final test error at width 100 that is not the largest of all widths, or one that is as large when
descent stops after a hundred steps.
"""

from typing import Any

import torch

import trainvitals as tv
from trainvitals.sample_runs.claims import Claim, Runs, at, last
from trainvitals.sample_runs.parts import half_squared_error
from trainvitals.sample_runs.running import alone

NUM_TRAIN = 100
WIDTHS = (10, 50, 80, 100, 125, 200, 1000)
ARMS = {f"width-{width}": {"width": width} for width in WIDTHS}


class ManyStepsOfDescent(torch.optim.Optimizer):
    """Full-batch gradient descent on least squares, in closed form: step k takes it to 10^k steps from the start.

    Args:
        weight: the readout (1, D), zero at the start.
        features: (N, D), fixed.
        targets: (N, 1).
        learning_rate: in units of 1/λ1 of the features' covariance.
    """

    def __init__(self, weight, features, targets, learning_rate):
        super().__init__([weight], {"lr": learning_rate})
        left, self.sigma, self.right = torch.linalg.svd(features / len(features) ** 0.5, full_matrices=False)
        self.goal = (left.T @ targets / len(features) ** 0.5).squeeze(1) / self.sigma  # least squares, by direction
        self.num_calls = 0

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Go on to ten times as many steps of descent."""
        self.num_calls += 1
        group = self.param_groups[0]
        rate = group["lr"] * (self.sigma / self.sigma[0]) ** 2
        done = -torch.expm1(10.0**self.num_calls * torch.log1p(-rate.clamp(max=1 - 1e-12)))
        group["params"][0].copy_((self.right.T @ (done * self.goal)).unsqueeze(0))


def train(seed=0, *, width=100, learning_rate=1.0, noise=0.3, num_steps=9, store="runs/",
          name="double-descent") -> tv.Run:  # fmt: skip
    """Fit a linear teacher by a readout of random ReLU features, on 100 samples in 20 dimensions."""
    torch.manual_seed(seed)
    teacher = torch.nn.functional.normalize(torch.randn(20, 1, dtype=torch.float64), dim=0)
    x, x_test = torch.randn(NUM_TRAIN, 20, dtype=torch.float64), torch.randn(1000, 20, dtype=torch.float64)
    y, y_test = x @ teacher + noise * torch.randn(NUM_TRAIN, 1, dtype=torch.float64), x_test @ teacher
    hidden, readout = torch.nn.Linear(20, width, bias=False), torch.nn.Linear(width, 1, bias=False)
    model = torch.nn.Sequential(hidden, torch.nn.ReLU(), readout).double()
    torch.nn.init.normal_(hidden.weight, std=20**-0.5)
    torch.nn.init.zeros_(readout.weight)
    hidden.requires_grad_(False)
    optimizer = ManyStepsOfDescent(readout.weight, model[:2](x), y, learning_rate)
    with tv.watch(model, optimizer, loss=half_squared_error, train=(x, y), heldout=(x_test, y_test), name=name,
                  store=store, budget=None, every=1,
                  probes=["loss.train", "loss.heldout", "overtraining", "features.condition", "weights.norm"],
                  ) as run:  # fmt: skip
        for _ in range(num_steps):
            optimizer.step()
    return tv.open_run(run.path)


def claim(runs: Runs) -> Claim:
    """Where the final test error peaks, how high, and what stopping after a hundred steps leaves of it."""
    final = {arm: last(run, "loss.heldout") for arm, run in runs.items()}
    early = {arm: at(run, "loss.heldout", 2) for arm, run in runs.items()}
    peak = final["width-100"]
    return Claim(
        shown=max(final, key=final.__getitem__) == "width-100" and peak > 5 * final["width-1000"]
        and early["width-100"] < peak / 5,
        effect=peak / final["width-1000"],
        effect_is="final test error at width 100 over that at width 1,000",
        figures={f"test error at the end, {arm}": value for arm, value in final.items()}
        | {"test error after 100 steps, width-100": early["width-100"]}
        | {"condition of the features, width-100": last(runs["width-100"], "features.condition")},
    )  # fmt: skip


if __name__ == "__main__":
    alone(__file__)
