"""Long after the last error, with weight decay, features collapse onto their class means, and the means onto a simplex.

Claim: when training goes on past 100 % accuracy, the spread within classes vanishes beside that between them (NC1), the
class means become equally long and equally far apart (NC2), and the classifier lines up with them (NC3).

Formula: NC1 = tr(Σ_W Σ_B⁺)/C → 0; cosines of class means → −1/(C − 1).

Paper: Papyan, Han, Donoho 2020, Prevalence of neural collapse during the terminal phase of deep learning training.

Look at: `nc1` to `nc3` on logarithmic axes: with weight decay they fall long after the accuracy has reached 1; without
it, hardly in the same time. `nc.cosines.means` goes to −1/3 with four classes.

Falsified by: NC1 at the end above two thirds of what it was when the last error went, NC3 above half of it, or cosines
away from −1/3.
"""

import torch

import trainvitals as tv
from trainvitals.sample_runs.claims import Claim, Runs, at, course, last, reached
from trainvitals.sample_runs.parts import descend, mixture, mlp
from trainvitals.sample_runs.running import alone

ARMS = {"decay-0": {"weight_decay": 0.0}, "decay-5e-4": {"weight_decay": 5e-4}}
NUM_CLASSES = 4


def train(seed=0, *, weight_decay=5e-4, learning_rate=0.1, width=128, num_steps=6000, store="runs/",
          name="neural-collapse") -> tv.Run:  # fmt: skip
    """Separate four Gaussian classes of 100 samples in 20 dimensions, full batch, far past the last error."""
    data = mixture([100] * NUM_CLASSES, 20, seed, distance=4.0)
    torch.manual_seed(seed)
    model, loss = mlp(20, 2 * width, width, NUM_CLASSES), torch.nn.functional.cross_entropy
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9, weight_decay=weight_decay)
    with tv.watch(model, optimizer, loss=loss, train=data.train, heldout=data.test, name=name, store=store, budget=None,
                  probes=["nc", "loss.train", "loss.heldout", "accuracy"], every=tv.log_spaced(16)) as run:  # fmt: skip
        descend(model, optimizer, loss, data.train, num_steps)
    return tv.open_run(run.path)


def claim(runs: Runs) -> Claim:
    """How far NC1 and NC3 fall after the last error, with weight decay."""
    run = runs["decay-5e-4"]
    fitted = int(reached(run, "accuracy.train", 1.0))
    ratio = last(run, "nc1") / at(run, "nc1", fitted)
    duality = last(run, "nc3") / at(run, "nc3", fitted)
    cosine = float(course(run, "nc.cosines.means")[1][-NUM_CLASSES:].mean())
    return Claim(
        shown=ratio < 2 / 3 and duality < 0.5 and abs(cosine + 1 / (NUM_CLASSES - 1)) < 0.03,
        effect=ratio,
        effect_is="NC1 at the end over NC1 when the last error went, decay 5e-4",
        figures={
            "step of the last error": fitted, "NC1 at the end": last(run, "nc1"),
            "NC1 at the end without decay": last(runs["decay-0"], "nc1"),
            "NC3 at the end over NC3 when the last error went": duality, "mean cosine of class means": cosine,
            "spread of the angles of class means": last(run, "nc2.angles_means"),
        },
    )  # fmt: skip


if __name__ == "__main__":
    alone(__file__)
