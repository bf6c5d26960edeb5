"""At the same number of updates, fresh data beats repeated data, though repeated data looks better in training.

Claim: 600 updates on 30,000 different samples generalise better than 600 updates that go over 300 samples a hundred
times. The train loss says the opposite.

Formula: passes = updates · batch size / unique samples.

Paper: Komatsuzaki 2019, One Epoch Is All You Need; Hernandez et al. 2022, Scaling Laws and Interpretability of Learning
from Repeated Data.

Look at: `loss.heldout`, `loss.train` and `gap.loss` of the three runs, and `data.passes`.

Falsified by: a held-out loss after a hundred passes that is not larger than after one, or a train loss that is.
"""

import torch

import trainvitals as tv
from trainvitals.sample_runs.claims import Claim, Runs, last
from trainvitals.sample_runs.parts import descend, mixture, mlp
from trainvitals.sample_runs.running import alone

ARMS = {"once": {"num_unique": 30_000}, "ten-times": {"num_unique": 3000}, "hundred-times": {"num_unique": 300}}
NUM_CLASSES, NUM_CLUSTERS = 5, 15


def train(seed=0, *, num_unique=300, learning_rate=0.01, weight_decay=0.0, width=128, batch_size=50, num_steps=600,
          store="runs/", name="data-repetition") -> tv.Run:  # fmt: skip
    """Train on samples of five classes of three Gaussian clusters each, in 30 dimensions."""
    data = mixture([2000] * NUM_CLUSTERS, 30, seed, distance=4.0)
    chosen = torch.randperm(len(data.y), generator=torch.Generator().manual_seed(seed))[:num_unique]
    x, y = data.x[chosen], data.y[chosen] % NUM_CLASSES
    torch.manual_seed(seed)
    model, loss = mlp(30, width, width, NUM_CLASSES), torch.nn.functional.cross_entropy
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9, weight_decay=weight_decay)
    test = data.x_test, data.y_test % NUM_CLASSES
    with tv.watch(model, optimizer, loss=loss, train=(x[:300], y[:300]), heldout=test,
                  name=name, store=store, budget=None, every=20, inputs=False,
                  probes={"loss.train": {}, "loss.heldout": {}, "gap": {}, "accuracy.heldout": {},
                          "data.passes": {"samples_per_step": batch_size, "num_unique": len(y)}}) as run:  # fmt: skip
        descend(model, optimizer, loss, (x, y), num_steps, batch_size=batch_size, seed=seed)
    return tv.open_run(run.path)


def claim(runs: Runs) -> Claim:
    """Held-out and train loss at the end of the three runs."""
    heldout = {arm: last(run, "loss.heldout") for arm, run in runs.items()}
    fit = {arm: last(run, "loss.train") for arm, run in runs.items()}
    return Claim(
        shown=heldout["hundred-times"] > 1.2 * heldout["once"] and fit["hundred-times"] < fit["once"],
        effect=heldout["hundred-times"] / heldout["once"],
        effect_is="held-out loss after a hundred passes over that after one, at equal updates",
        figures={f"held-out loss, {arm}": value for arm, value in heldout.items()}
        | {f"train loss, {arm}": value for arm, value in fit.items()},
    )  # fmt: skip


if __name__ == "__main__":
    alone(__file__)
