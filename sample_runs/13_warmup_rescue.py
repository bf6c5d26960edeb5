"""From a start of high curvature plain descent blows up; a warm-up, clipping or LayerNorm saves it.

Claim: weights that start too large give a sharpness far above the stability threshold. Plain gradient descent then
jumps out and never comes back. A warm-up or clipped gradients let it move to a flatter place first; LayerNorm
starts flatter.

Formula: η·λ1(H)/2 at the start is far above 1; warm-up: η_t = η·min(1, t/T).

Paper: Gilmer et al. 2022, A Loss Curvature Perspective on Training Instability in Deep Learning.

Look at: `loss.train` of the four runs on a logarithmic axis above `stability.ratio`, which starts far above 1 and comes
down in those that are saved.

Falsified by: a plain run that reaches 50 % test accuracy, or a saved one that does not reach 85 %. The numbers matter:
at a learning rate of 0.1 to 0.3 the plain run recovers by itself.
"""

import torch

import trainvitals as tv
from trainvitals.sample_runs.claims import Claim, Runs, at, course, last
from trainvitals.sample_runs.parts import digits, mlp
from trainvitals.sample_runs.running import alone

ARMS = {"plain": {}, "warm-up": {"warmup": 200}, "clip": {"clip": 0.5}, "layer-norm": {"layer_norm": True}}


def train(seed=0, *, learning_rate=1.0, scale=4.0, warmup=0, clip=0.0, layer_norm=False, weight_decay=0.0, width=64,
          num_steps=600, store="runs/", name="warmup-rescue") -> tv.Run:  # fmt: skip
    """Train on 300 digits, full batch, from weight matrices that are `scale` times the usual."""
    data = digits(300, seed)
    torch.manual_seed(seed)
    model = mlp(64, width, width, width, 10, norm=torch.nn.LayerNorm if layer_norm else None)
    with torch.no_grad():
        for p in model.parameters():
            p *= scale if p.ndim == 2 else 1.0
    loss = torch.nn.functional.cross_entropy
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    with tv.watch(model, optimizer, loss=loss, train=data.train, heldout=data.test, name=name, store=store, budget=None,
                  probes=["loss.train", "accuracy.heldout", "stability"],
                  every={"loss": 5, "accuracy": 20, "stability": tv.at_steps([0, 5, 20, 50, 100, 200, 400, 600])},
                  ) as run:  # fmt: skip
        for step in range(num_steps):
            optimizer.param_groups[0]["lr"] = learning_rate * min(1.0, (step + 1) / max(warmup, 1))
            optimizer.zero_grad()
            loss(model(data.x), data.y).backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
    return tv.open_run(run.path)


def claim(runs: Runs) -> Claim:
    """Test accuracy of the four runs, and how far above the edge they start."""
    tests = {arm: last(run, "accuracy.heldout") for arm, run in runs.items()}
    saved = min(value for arm, value in tests.items() if arm != "plain")
    return Claim(
        shown=tests["plain"] < 0.5 and saved > 0.85,
        effect=saved - tests["plain"],
        effect_is="test accuracy of the worst saved run less that of the plain one",
        figures={f"test accuracy, {arm}": value for arm, value in tests.items()}
        | {"sharpness over the threshold at the start, plain": at(runs["plain"], "stability.ratio", 0),
           "highest loss, plain": float(course(runs["plain"], "loss.train")[1].max())},
    )  # fmt: skip


if __name__ == "__main__":
    alone(__file__)
