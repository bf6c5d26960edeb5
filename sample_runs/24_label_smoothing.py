"""Label smoothing draws the samples of a class together far more tightly than plain cross-entropy does.

Claim: with smoothed labels features collapse onto their class means within an ordinary training, since every sample is
asked for the same finite logits. The accuracy is the same.

Formula: targets (1 − ε) onehot(y) + ε/C; NC1 = tr(Σ_W Σ_B⁺)/C.

Paper: Müller, Kornblith, Hinton 2019, When Does Label Smoothing Help?; Zhou et al. 2025, MaxSup: Overcoming
Representation Collapse in Label Smoothing.

Look at: `nc1` of both runs. The ratio of traces tr Σ_W / tr Σ_B may say something else: in networks of other depth it
rose, so that only NC1 is claimed.

Falsified by: NC1 with smoothing above a third of that without.
"""

import torch

import trainvitals as tv
from trainvitals.sample_runs.claims import Claim, Runs, last
from trainvitals.sample_runs.parts import descend, digits
from trainvitals.sample_runs.running import alone

ARMS = {"plain": {"smoothing": 0.0}, "smoothed": {"smoothing": 0.1}}
NUM_TRAIN = 1000


def train(seed=0, *, smoothing=0.1, learning_rate=0.05, weight_decay=5e-4, width=256, batch_size=50, num_epochs=100,
          store="runs/", name="label-smoothing") -> tv.Run:  # fmt: skip
    """Train on 1,000 digits; the features are the 64 units before the classifier."""
    data = digits(NUM_TRAIN, seed)
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Linear(width, width), torch.nn.ReLU(),
        torch.nn.Linear(width, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10),
    )  # fmt: skip
    loss = torch.nn.CrossEntropyLoss(label_smoothing=smoothing)
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9, weight_decay=weight_decay)
    epoch = NUM_TRAIN // batch_size
    with tv.watch(model, optimizer, loss=loss, train=data.train, heldout=data.test, name=name, store=store, budget=None,
                  every=5 * epoch, inputs=False, probes=["nc1", "nc2", "accuracy", "loss.train"]) as run:  # fmt: skip
        descend(model, optimizer, loss, data.train, num_epochs * epoch, batch_size=batch_size, seed=seed)
    return tv.open_run(run.path)


def claim(runs: Runs) -> Claim:
    """NC1 at the end with and without smoothing."""
    ends = {arm: last(run, "nc1") for arm, run in runs.items()}
    return Claim(
        shown=ends["smoothed"] < ends["plain"] / 3,
        effect=ends["smoothed"] / ends["plain"],
        effect_is="NC1 with label smoothing over that without",
        figures={f"NC1, {arm}": value for arm, value in ends.items()}
        | {f"held-out accuracy, {arm}": last(run, "accuracy.heldout") for arm, run in runs.items()}
        | {f"train accuracy, {arm}": last(run, "accuracy.train") for arm, run in runs.items()},
    )  # fmt: skip


if __name__ == "__main__":
    alone(__file__)
