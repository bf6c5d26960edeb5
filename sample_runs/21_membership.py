"""The more a network overfits, the better its loss tells which samples it was trained on.

Claim: an attack that calls samples of low loss members is at chance for a network that generalises and works on one
that has memorised its train set. Weight decay takes it away.

Formula: AUC = P(ℓ of a train sample < ℓ of a held-out one); 0.5 is no leak.

Paper: Yeom, Giacomelli, Fredrikson, Jha 2018, Privacy Risk in Machine Learning: Analyzing the Connection to
Overfitting.

Look at: `mia_auc` with its line at 0.5 beside `gap.loss`. Held-out labels are made wrong as often as train labels, so
that noise alone does not tell the two apart.

Falsified by: an AUC away from 0.5 at the start, below 0.7 at the end without decay, or no lower with decay.
"""

import torch

import trainvitals as tv
from trainvitals.sample_runs.claims import Claim, Runs, course, last
from trainvitals.sample_runs.parts import descend, digits, mlp, with_wrong_labels
from trainvitals.sample_runs.running import alone

ARMS = {"decay-0": {"weight_decay": 0.0}, "decay-0.01": {"weight_decay": 1e-2}}
NUM_TRAIN = 800


def train(seed=0, *, weight_decay=0.0, label_noise=0.3, learning_rate=0.05, width=128, batch_size=64, num_epochs=100,
          store="runs/", name="membership") -> tv.Run:  # fmt: skip
    """Train on 800 digits, 30 % of them wrongly labelled, as are the held-out ones."""
    data = digits(NUM_TRAIN, seed, wrong_share=label_noise)
    y_test = with_wrong_labels(data.y_test, label_noise, 10, torch.Generator().manual_seed(seed + 1))
    torch.manual_seed(seed)
    model, loss = mlp(64, width, width, 10), torch.nn.functional.cross_entropy
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9, weight_decay=weight_decay)
    epoch = NUM_TRAIN // batch_size
    with tv.watch(model, optimizer, loss=loss, train=data.train, heldout=(data.x_test, y_test), name=name, store=store,
                  budget=None, every=2 * epoch, inputs=False,
                  probes=["mia_auc", "gap", "loss.train", "loss.heldout", "accuracy"]) as run:  # fmt: skip
        descend(model, optimizer, loss, data.train, num_epochs * epoch, batch_size=batch_size, seed=seed)
    return tv.open_run(run.path)


def claim(runs: Runs) -> Claim:
    """The AUC at the start and at the end, with and without decay."""
    start = float(course(runs["decay-0"], "mia_auc")[1][0])
    ends = {arm: last(run, "mia_auc", mean_of=5) for arm, run in runs.items()}
    return Claim(
        shown=abs(start - 0.5) < 0.05 and ends["decay-0"] > 0.7 and ends["decay-0.01"] < ends["decay-0"] - 0.1,
        effect=ends["decay-0"],
        effect_is="AUC of the loss for membership at the end, without decay",
        figures={
            "AUC at the start": start, "AUC at the end, decay 0.01": ends["decay-0.01"],
            "gap of the loss at the end, without decay": last(runs["decay-0"], "gap.loss", mean_of=5),
            "gap of the loss at the end, decay 0.01": last(runs["decay-0.01"], "gap.loss", mean_of=5),
        },
    )  # fmt: skip


if __name__ == "__main__":
    alone(__file__)
