"""Within three epochs the error of single samples tells which labels are wrong; much later it no longer does as well.

Claim: the norm of a sample's error (EL2N) ranks wrongly labelled samples above the others after a few epochs of
training. At the start it knows nothing, and once wrong labels are memorised the signal fades.

Formula: EL2N = ‖softmax(f(x_i)) − onehot(y_i)‖₂; AUC = P(score of a wrong label > score of a right one).

Paper: Paul, Ganguli, Dziugaite 2021, Deep Learning on a Data Diet: Finding Important Examples Early in Training.

Look at: the page *Which samples?* of a run with pictures, `el2n` at epochs 1, 3, 10 and 60, and `flipped_fit.flipped`.

Falsified by: an AUC below 0.9 at epoch 3, away from 0.5 at the start by more than 0.1, or not lower at epoch 60.
"""

import numpy as np
import torch

import trainvitals as tv
from trainvitals.sample_runs.claims import Claim, Runs, last
from trainvitals.sample_runs.parts import descend, digits, mlp
from trainvitals.sample_runs.running import alone

ARMS = {"wrong-labels": {}}
NUM_TRAIN = 1000


def train(seed=0, *, label_noise=0.2, learning_rate=0.1, weight_decay=0.0, width=128, batch_size=64, num_epochs=60,
          store="runs/", name="early-scores") -> tv.Run:  # fmt: skip
    """Train on 1,000 digits with wrong labels; which ones are wrong is kept in the run's settings."""
    data = digits(NUM_TRAIN, seed, wrong_share=label_noise)
    torch.manual_seed(seed)
    model, loss = mlp(64, width, 10), torch.nn.functional.cross_entropy
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9, weight_decay=weight_decay)
    epoch = NUM_TRAIN // batch_size
    with tv.watch(model, optimizer, loss=loss, train=data.train, heldout=data.test, name=name, store=store, budget=None,
                  probes={"el2n": {}, "loss.train": {}, "loss.heldout": {}, "accuracy.heldout": {},
                          "flipped_fit": data.flipped_fit},
                  every={"loss": epoch, "accuracy": epoch, "flipped_fit": epoch,
                         "el2n": tv.at_steps([n * epoch for n in (0, 1, 3, 10, 60)])},
                  inputs=False, config={"epoch": epoch, "wrong": data.wrong}) as run:  # fmt: skip
        descend(model, optimizer, loss, data.train, num_epochs * epoch, batch_size=batch_size, seed=seed)
    return tv.open_run(run.path)


def auc(scores: np.ndarray, is_wrong: np.ndarray) -> float:
    """Return the chance that a wrong label has the larger score of a random pair; ties count half."""
    above = scores[is_wrong][:, None] - scores[~is_wrong][None]
    return float((above > 0).mean() + 0.5 * (above == 0).mean())


def claim(runs: Runs) -> Claim:
    """The AUC of EL2N for wrong labels over the epochs."""
    run = runs["wrong-labels"]
    epoch, wrong = run.meta["config"]["epoch"], run.meta["config"]["wrong"]
    points = run.series("el2n")
    areas = {}
    for step, rows in points.groupby("step"):
        areas[step // epoch] = auc(rows["value"].to_numpy(), np.isin(rows["key"].astype(int), wrong))
    return Claim(
        shown=areas[3] > 0.9 and abs(areas[0] - 0.5) < 0.1 and areas[max(areas)] < areas[3],
        effect=areas[3],
        effect_is="AUC of EL2N for wrong labels at epoch 3",
        figures={f"AUC at epoch {n}": value for n, value in areas.items() if n != 3}
        | {"wrong labels fitted at the end": last(run, "flipped_fit.flipped")},
    )  # fmt: skip


if __name__ == "__main__":
    alone(__file__)
