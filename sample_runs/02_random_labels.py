"""The same network fits real and random labels; what tells them apart in time is whether gradients agree.

Claim: a network with more parameters than samples fits random labels as completely as real ones, so train accuracy
says nothing about generalisation. Fitting noise takes longer, moves the weights further and opens a gap that never
closes. The gradients of single samples agree on real labels from the start, and do not on random ones.

Formula: gap = L(held-out) − L(train); coherence = N·‖ḡ‖² / mean ‖g_i‖², 1 for gradients that have nothing in common.

Paper: Zhang, Bengio, Hardt, Recht, Vinyals 2017, Understanding deep learning requires rethinking generalization;
Chatterjee, Zielinski 2022, On the Generalization Mystery in Deep Learning.

Look at: `accuracy.train` of both runs (the same end), `gap.loss` and `weights.norm.distance` (another end), and
`grad.coherence` in the first epochs. Late in training the order of the coherence is the other way round: compare
early, or at equal train loss.

Falsified by: random labels that stay unfitted, or a coherence in the first two epochs that is not larger on real
labels.
"""

import torch

import trainvitals as tv
from trainvitals.sample_runs.claims import Claim, Runs, course, last
from trainvitals.sample_runs.parts import descend, digits, mlp
from trainvitals.sample_runs.running import alone

ARMS = {"real": {"label_noise": 0.0}, "random": {"label_noise": 0.9}}
NUM_TRAIN = 600


def train(seed=0, *, label_noise=0.9, learning_rate=0.2, weight_decay=0.0, width=256, batch_size=50, num_epochs=300,
          store="runs/", name="random-labels") -> tv.Run:  # fmt: skip
    """Train on 600 digits; with label_noise=0.9 every label is as good as drawn at random."""
    data = digits(NUM_TRAIN, seed, wrong_share=label_noise)
    torch.manual_seed(seed)
    model, loss = mlp(64, width, 10), torch.nn.functional.cross_entropy
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    epoch = NUM_TRAIN // batch_size
    with tv.watch(model, optimizer, loss=loss, train=data.train, heldout=data.test, name=name, store=store, budget=None,
                  probes=["gap", "loss.train", "loss.heldout", "accuracy", "overtraining", "weights.norm",
                          "grad.coherence"],
                  every={"gap": 2 * epoch, "loss": 2 * epoch, "accuracy": 2 * epoch, "overtraining": 2 * epoch,
                         "weights": 10 * epoch,
                         "grad.coherence": tv.at_steps([n * epoch for n in (0, 1, 2, 5, 10, 20, 50, 100, 200, 300)])},
                  ) as run:  # fmt: skip
        descend(model, optimizer, loss, data.train, num_epochs * epoch, batch_size=batch_size, seed=seed)
    return tv.open_run(run.path)


def distance(run: tv.Run) -> float:
    """Return how far all weights together have moved, at the end."""
    points = run.series("weights.norm.distance")
    return float((points[points["step"] == points["step"].max()]["value"] ** 2).sum() ** 0.5)


def claim(runs: Runs) -> Claim:
    """Both are fitted; only one generalises; coherence in the first two epochs says which."""
    real, random = runs["real"], runs["random"]
    early = {arm: float(course(run, "grad.coherence")[1][1:3].mean()) for arm, run in runs.items()}
    return Claim(
        shown=last(real, "accuracy.train") > 0.99 and last(random, "accuracy.train") > 0.97
        and last(random, "accuracy.heldout") < 0.2 and early["real"] > 2 * early["random"],
        effect=last(random, "gap.loss") - last(real, "gap.loss"),
        effect_is="how much larger the gap of the loss is on random labels, nats",
        figures={
            "train accuracy, real": last(real, "accuracy.train"),
            "train accuracy, random": last(random, "accuracy.train"),
            "held-out accuracy, real": last(real, "accuracy.heldout"),
            "held-out accuracy, random": last(random, "accuracy.heldout"),
            "distance from the start, real": distance(real), "distance from the start, random": distance(random),
            "coherence after 1 and 2 epochs, real": early["real"],
            "coherence after 1 and 2 epochs, random": early["random"],
            "coherence at the end, real": last(real, "grad.coherence"),
            "coherence at the end, random": last(random, "grad.coherence"),
        },
    )  # fmt: skip


if __name__ == "__main__":
    alone(__file__)
