"""The distance from the start grows like the logarithm of the step, until memorising bends it to a square root.

Claim: at a high learning rate the weights wander away from their start as a particle does on a random landscape: very
slowly, with log t. With wrong labels to memorise they move on as a free walk does, with √t.

Formula: ‖θ(t) − θ(0)‖ = a + b log t against a + b √t; the larger R² is the better law.

Paper: Hoffer, Hubara, Soudry 2017, Train longer, generalize better: closing the generalization gap in large batch
training of neural networks.

Look at: `growth_law.r2_log` and `growth_law.r2_sqrt`, and `weights.norm.distance` over logarithmic steps.

Falsified by: clean labels whose distance follows √t better, or noisy ones whose distance follows log t better.
"""

import torch

import trainvitals as tv
from trainvitals.sample_runs.claims import Claim, Runs, last
from trainvitals.sample_runs.parts import descend, digits, mlp
from trainvitals.sample_runs.running import alone

ARMS = {"clean": {"label_noise": 0.0}, "noisy": {"label_noise": 0.2}}
NUM_TRAIN = 1000


def train(seed=0, *, label_noise=0.0, learning_rate=0.2, weight_decay=0.0, width=128, batch_size=32, num_steps=3000,
          store="runs/", name="distance-log-t") -> tv.Run:  # fmt: skip
    """Train a network with BatchNorm on 1,000 digits, and measure at steps spread evenly on a log axis."""
    data = digits(NUM_TRAIN, seed, wrong_share=label_noise)
    torch.manual_seed(seed)
    model, loss = mlp(64, width, width, 10, norm=torch.nn.BatchNorm1d), torch.nn.functional.cross_entropy
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    with tv.watch(model, optimizer, loss=loss, train=data.train, heldout=data.test, name=name, store=store, budget=None,
                  every=tv.log_spaced(12), probes=["growth_law", "weights.norm", "loss.train", "accuracy.heldout"],
                  ) as run:  # fmt: skip
        descend(model, optimizer, loss, data.train, num_steps, batch_size=batch_size, seed=seed)
    return tv.open_run(run.path)


def claim(runs: Runs) -> Claim:
    """R² of both laws on clean and on noisy labels."""
    fits = {(arm, law): last(run, f"growth_law.r2_{law}") for arm, run in runs.items() for law in ("log", "sqrt")}
    return Claim(
        shown=fits["clean", "log"] > fits["clean", "sqrt"] and fits["noisy", "sqrt"] > fits["noisy", "log"],
        effect=fits["clean", "log"],
        effect_is="R² of log t on clean labels",
        figures={f"R² of {'log t' if law == 'log' else '√t'}, {arm}": value for (arm, law), value in fits.items()
                 if (arm, law) != ("clean", "log")},
    )  # fmt: skip


if __name__ == "__main__":
    alone(__file__)
