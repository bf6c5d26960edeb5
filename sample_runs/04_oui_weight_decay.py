"""The overfitting-underfitting indicator (OUI) orders weight decays within ten epochs, without held-out data.

Claim: OUI, how differently two samples switch a layer's units on and off, falls with weight decay, and does so long
before the loss tells the runs apart. Too little decay overfits wrong labels, too much underfits; the best lies between.

Formula: OUI = mean over pairs of samples and layers of min(Hamming distance, ⌊d/2⌋) / ⌊d/2⌋ of their on-off patterns.

Paper: Fernández-Hernández, Mestre, Dolz, Duato, Quintana-Ortí 2025, OUI Need to Talk About Weight Decay: A New
Perspective on Overfitting Detection.

Look at: `oui` of all runs at step 90 (epoch 10) beside `accuracy.heldout` at the end. The band of 0.6 to 0.8 that the
authors name does not separate these runs: those without decay, which overfit, end inside it.

Falsified by: a run with more decay that has a larger OUI at epoch 10, or a best test accuracy at either end.
"""

from itertools import pairwise

import torch

import trainvitals as tv
from trainvitals.sample_runs.claims import Claim, Runs, at, last
from trainvitals.sample_runs.parts import descend, digits, mlp
from trainvitals.sample_runs.running import alone

DECAYS = (0.0, 3e-3, 1e-2, 2e-2, 5e-2)
ARMS = {f"decay-{decay:g}": {"weight_decay": decay} for decay in DECAYS}
NUM_TRAIN = 600


def train(seed=0, *, weight_decay=1e-2, label_noise=0.15, learning_rate=0.05, width=256, batch_size=64,
          num_epochs=120, store="runs/", name="oui-weight-decay") -> tv.Run:  # fmt: skip
    """Train on 600 digits with 15 % wrong labels; OUI is measured on all of them."""
    data = digits(NUM_TRAIN, seed, wrong_share=label_noise)
    torch.manual_seed(seed)
    model, loss = mlp(64, width, width, 10), torch.nn.functional.cross_entropy
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9, weight_decay=weight_decay)
    epoch = NUM_TRAIN // batch_size
    with tv.watch(model, optimizer, loss=loss, train=data.train, heldout=data.test, name=name, store=store,
                  budget=None, every=5 * epoch,
                  probes={"oui": {}, "gap": {}, "loss.train": {}, "loss.heldout": {}, "accuracy.train": {},
                          "accuracy.heldout": {}, "flipped_fit": data.flipped_fit}) as run:  # fmt: skip
        descend(model, optimizer, loss, data.train, num_epochs * epoch, batch_size=batch_size, seed=seed)
    return tv.open_run(run.path)


def claim(runs: Runs) -> Claim:
    """The order of OUI at epoch 10, and where the best test accuracy lies."""
    early = {arm: at(run, "oui", 90) for arm, run in runs.items()}
    tests = {arm: last(run, "accuracy.heldout", mean_of=3) for arm, run in runs.items()}
    best = max(tests, key=tests.__getitem__)
    falls = all(early[a] > early[b] for a, b in pairwise(ARMS))
    return Claim(
        shown=falls and best not in ("decay-0", "decay-0.05"),
        effect=early["decay-0"] - early["decay-0.05"],
        effect_is="OUI at epoch 10 without decay, less that at decay 0.05",
        figures={f"OUI at epoch 10, {arm}": value for arm, value in early.items()}
        | {f"test accuracy, {arm}": value for arm, value in tests.items()}
        | {"OUI at the end without decay": last(runs["decay-0"], "oui"),
           "OUI at the end, best test accuracy": last(runs[best], "oui")},
    )  # fmt: skip


if __name__ == "__main__":
    alone(__file__)
