"""With unequal classes the collapse bends: rarer classes get longer means and shorter classifier rows.

Claim: a network without biases, trained with squared error and weight decay, still collapses when classes differ in
size, but onto orthogonal directions whose lengths follow the class sizes.

Formula: cos(μ_a, μ_b) → 0 for a ≠ b; ‖μ_c‖ falls and ‖w_c‖ rises with the size of class c.

Paper: Dang, Tran, Osher, Tran-The, Ho, Nguyen 2023, Neural Collapse in Deep Linear Networks: From Balanced to
Imbalanced Data.

Look at: the logged lengths `mean_norm_0` (largest class) to `mean_norm_3` and `row_norm_0` to `row_norm_3`, and
`largest_cosine` of the raw class means, which goes to 0.

Falsified by: lengths that are not in the order of the class sizes, or a cosine that stays away from 0.
"""

import torch

import trainvitals as tv
from trainvitals.sample_runs.claims import Claim, Runs, last
from trainvitals.sample_runs.parts import half_squared_error, mlp, take_step
from trainvitals.sample_runs.running import alone

SIZES = (200, 100, 50, 25)
ARMS = {"imbalanced": {"sizes": SIZES}, "balanced": {"sizes": (100, 100, 100, 100)}}


def train(seed=0, *, sizes=SIZES, learning_rate=3e-3, weight_decay=1e-3, width=64, num_steps=1200, store="runs/",
          name="imbalanced-collapse") -> tv.Run:  # fmt: skip
    """Train a linear network of three layers on orthogonal inputs, one direction a sample."""
    torch.manual_seed(seed)
    y = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    x = torch.linalg.qr(torch.randn(500, 500))[0][: len(y)]
    model = mlp(500, width, width, len(sizes), activation=torch.nn.Identity, bias=False)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    with tv.watch(model, optimizer, loss=half_squared_error, train=(x, y), name=name, store=store, budget=None,
                  probes=["nc", "loss.train", "weights.norm"], every=20) as run:  # fmt: skip
        for step in range(num_steps):
            if step % 20 == 0:
                run.log(**lengths(model, x, y))
            take_step(optimizer, half_squared_error(model(x), y))
        run.log(**lengths(model, x, y))
    return tv.open_run(run.path)


@torch.no_grad()
def lengths(model, x, y) -> dict[str, float]:
    """Return the lengths of raw class means and classifier rows, and the largest cosine of two means."""
    features = model[:-1](x)
    means = torch.stack([features[y == c].mean(dim=0) for c in y.unique()])
    rows = model[-1].weight
    unit = torch.nn.functional.normalize(means)
    cosines = (unit @ unit.T - torch.eye(len(means))).abs()
    return {
        **{f"mean_norm_{c}": float(m.norm()) for c, m in enumerate(means)},
        **{f"row_norm_{c}": float(w.norm()) for c, w in enumerate(rows)},
        "largest_cosine": float(cosines.max()),
    }


def claim(runs: Runs) -> Claim:
    """The order of the lengths, and their ratio between the smallest and the largest class."""
    run = runs["imbalanced"]
    means, rows = ([last(run, f"{kind}_norm_{c}") for c in range(4)] for kind in ("mean", "row"))
    even = last(runs["balanced"], "mean_norm_3") / last(runs["balanced"], "mean_norm_0")
    return Claim(
        shown=means == sorted(means) and rows == sorted(rows, reverse=True) and last(run, "largest_cosine") < 0.05
        and abs(even - 1) < 0.05,
        effect=means[3] / means[0],
        effect_is="length of the smallest class's mean over that of the largest's",
        figures={
            "the same with equal classes": even, "classifier rows, smallest over largest class": rows[3] / rows[0],
            "largest cosine of two class means": last(run, "largest_cosine"),
        },
    )  # fmt: skip


if __name__ == "__main__":
    alone(__file__)
