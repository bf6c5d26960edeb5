"""Full-batch gradient descent ends where the sharpness is 2 over the learning rate, unless it is too small for that.

Claim: with a learning rate η, gradient descent can rest only where the largest eigenvalue of the Hessian is at most
2/η. Training raises the sharpness until it is there, and then it hovers: the loss jumps up and down and still falls.
Mini-batches of one sample hold the trace of the Hessian, which is larger, below 2/η, and so end flatter.

Formula: λ1(H) ≤ 2/η for gradient descent; tr(H) ≤ 2/η for SGD with one sample a step.

Paper: Cohen, Kaur, Li, Kolter, Talwalkar 2021, Gradient Descent on Neural Networks Typically Occurs at the Edge of
Stability; Wu, Su 2023, The Implicit Regularization of Dynamical Stability in Stochastic Gradient Descent.

Look at: `stability.ratio`, the sharpness over 2/η, with its line at 1; `hessian.trace` of the run with one sample a
step beside that of full-batch descent with the same learning rate.

Falsified by: a ratio that ends away from 1 at the two larger learning rates, one that reaches 1 at the smallest, or a
trace above 2/η with one sample a step.
"""

import torch

import trainvitals as tv
from trainvitals.sample_runs.claims import Claim, Runs, at, course, last
from trainvitals.sample_runs.parts import descend, half_squared_error, mlp
from trainvitals.sample_runs.running import alone

ARMS = {
    "lr-0.2": {"learning_rate": 0.2},
    "lr-0.5": {"learning_rate": 0.5},
    "lr-1.0": {"learning_rate": 1.0},
    "one-sample": {"learning_rate": 0.2, "batch_size": 1, "num_steps": 16_000},
}


def train(seed=0, *, learning_rate=0.5, width=16, batch_size=40, num_steps=3000, store="runs/",
          name="edge-of-stability") -> tv.Run:  # fmt: skip
    """Fit the sine of a random projection of 40 points with a small tanh network; batch_size=40 is full batch."""
    torch.manual_seed(seed)
    x = torch.randn(40, 5, dtype=torch.float64)
    y = torch.sin(x @ torch.randn(5, 1, dtype=torch.float64))
    model = mlp(5, width, 1, activation=torch.nn.Tanh).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    with tv.watch(model, optimizer, loss=half_squared_error, train=(x, y), name=name, store=store, budget=None,
                  probes=["loss.train", "hessian.top", "hessian.trace", "stability"],
                  every={"loss.train": max(1, num_steps // 600), "hessian": num_steps // 75,
                         "stability": num_steps // 75}) as run:  # fmt: skip
        descend(model, optimizer, half_squared_error, (x, y), num_steps,
                batch_size=None if batch_size >= len(y) else batch_size, seed=seed)  # fmt: skip
    return tv.open_run(run.path)


def claim(runs: Runs) -> Claim:
    """At the edge at the two larger learning rates, below it at the smallest; the trace kept down by SGD."""
    ends = {arm: last(runs[arm], "stability.ratio", mean_of=10) for arm in ("lr-0.2", "lr-0.5", "lr-1.0")}
    limit = 2 / 0.2
    full, single = (last(runs[arm], "hessian.trace", mean_of=10) for arm in ("lr-0.2", "one-sample"))
    rises = float((course(runs["lr-1.0"], "loss.train")[1][1:] > course(runs["lr-1.0"], "loss.train")[1][:-1]).mean())
    return Claim(
        shown=all(0.9 < ends[arm] < 1.1 for arm in ("lr-0.5", "lr-1.0")) and ends["lr-0.2"] < 0.9
        and single < limit < full,
        effect=ends["lr-1.0"],
        effect_is="sharpness over 2/η at the end, learning rate 1.0",
        figures={
            "ratio at learning rate 0.2": ends["lr-0.2"], "ratio at learning rate 0.5": ends["lr-0.5"],
            "ratio at the start, learning rate 0.5": at(runs["lr-0.5"], "stability.ratio", 0),
            "share of measurements at which the loss rose, learning rate 1.0": rises,
            "trace, full batch": full, "trace, one sample a step": single, "2/η of both": limit,
        },
    )  # fmt: skip


if __name__ == "__main__":
    alone(__file__)
