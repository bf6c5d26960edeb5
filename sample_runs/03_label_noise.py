"""Clean labels are learned first, wrong ones later; dropout puts that off.

Claim: with 40 % wrong labels a network first learns what the digits look like, and its test accuracy peaks; then it
memorises the wrong labels one by one, and test accuracy falls. Dropout makes it memorise fewer of them.

Formula: memorised = share of wrongly labelled samples predicted as their wrong label.

Paper: Arpit et al. 2017, A Closer Look at Memorization in Deep Networks; Hinton et al. 2012, Improving neural networks
by preventing co-adaptation of feature detectors.

Look at: `flipped_fit.clean`, `flipped_fit.flipped` and `accuracy.heldout` on one axis, and `overtraining`, which
leaves 1 where memorisation starts. `ece.heldout` may fall meanwhile: calibration is not the sign to read.

Falsified by: a test accuracy that does not fall by ten points from its peak without dropout, or as many wrong labels
memorised with dropout as without.
"""

import torch

import trainvitals as tv
from trainvitals.sample_runs.claims import Claim, Runs, course, last
from trainvitals.sample_runs.parts import descend, digits, mlp
from trainvitals.sample_runs.running import alone

ARMS = {"plain": {"dropout": 0.0}, "dropout": {"dropout": 0.5}}
NUM_TRAIN = 900


def train(seed=0, *, label_noise=0.4, dropout=0.0, learning_rate=2e-3, weight_decay=0.0, width=256, batch_size=50,
          num_epochs=200, store="runs/", name="label-noise") -> tv.Run:  # fmt: skip
    """Train on 900 digits of which a share is wrongly labelled."""
    data = digits(NUM_TRAIN, seed, wrong_share=label_noise)
    torch.manual_seed(seed)
    model, loss = mlp(64, width, 10, dropout=dropout), torch.nn.functional.cross_entropy
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    epoch = NUM_TRAIN // batch_size
    with tv.watch(model, optimizer, loss=loss, train=data.train, heldout=data.test, name=name, store=store, budget=None,
                  probes={"gap": {}, "loss.train": {}, "loss.heldout": {}, "accuracy.train": {},
                          "accuracy.heldout": {}, "overtraining": {}, "flipped_fit": data.flipped_fit, "ece": {}},
                  every=2 * epoch) as run:  # fmt: skip
        descend(model, optimizer, loss, data.train, num_epochs * epoch, batch_size=batch_size, seed=seed)
    return tv.open_run(run.path)


def claim(runs: Runs) -> Claim:
    """The fall of the test accuracy from its peak, and how much is memorised with and without dropout."""
    plain, dropped = runs["plain"], runs["dropout"]
    steps, accuracies = course(plain, "accuracy.heldout")
    fall = float(accuracies.max()) - last(plain, "accuracy.heldout", mean_of=5)
    memorised = {arm: last(run, "flipped_fit.flipped", mean_of=5) for arm, run in runs.items()}
    return Claim(
        shown=fall > 0.1 and memorised["plain"] > 0.8 and memorised["dropout"] < memorised["plain"] - 0.1,
        effect=fall,
        effect_is="fall of the test accuracy from its peak, without dropout",
        figures={
            "peak of test accuracy": float(accuracies.max()), "step of the peak": float(steps[accuracies.argmax()]),
            "memorised": memorised["plain"], "memorised with dropout": memorised["dropout"],
            "test accuracy at the end with dropout": last(dropped, "accuracy.heldout", mean_of=5),
            "calibration error at the peak": float(course(plain, "ece.heldout")[1][accuracies.argmax()]),
            "calibration error at the end": last(plain, "ece.heldout", mean_of=5),
        },
    )  # fmt: skip


if __name__ == "__main__":
    alone(__file__)
