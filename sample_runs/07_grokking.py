"""A small network memorises modular addition in a hundred steps and understands it many hundred steps later.

Claim: on small algorithmic data, train accuracy is perfect early, held-out accuracy stays at chance, and jumps to
perfect long afterwards. Weight decay brings it about: without decay the jump does not come in the same time.

Formula: delay = first step with held-out accuracy of 95 % over first step with train accuracy of 95 %.

Paper: Power, Burda, Edwards, Babuschkin, Misra 2022, Grokking: Generalization Beyond Overfitting on Small Algorithmic
Datasets.

Look at: `accuracy.train` and `accuracy.heldout` over logarithmic steps; `weights.norm.value` rises, peaks and falls
with decay, and only rises without.

Falsified by: held-out accuracy that rises together with train accuracy, or that rises without decay as well.
"""

import torch

import trainvitals as tv
from trainvitals.sample_runs.claims import Claim, Runs, last, reached
from trainvitals.sample_runs.parts import descend, mlp, modular_sums
from trainvitals.sample_runs.running import alone

ARMS = {"decay-1": {"weight_decay": 1.0}, "decay-0": {"weight_decay": 0.0}}


def train(seed=0, *, weight_decay=1.0, learning_rate=3e-3, width=256, train_share=0.7, modulus=41, num_steps=1500,
          store="runs/", name="grokking") -> tv.Run:  # fmt: skip
    """Train a network of one hidden layer, without biases, on all train pairs at once."""
    pairs, others = modular_sums(modulus, train_share, seed)
    torch.manual_seed(seed)
    model, loss = mlp(2 * modulus, width, modulus, bias=False), torch.nn.functional.cross_entropy
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=weight_decay)
    with tv.watch(model, optimizer, loss=loss, train=pairs, heldout=others, name=name, store=store, budget=None,
                  probes=["accuracy", "loss.train", "loss.heldout", "grokking_delay", "weights.norm", "margin.mean"],
                  every=20) as run:  # fmt: skip
        descend(model, optimizer, loss, pairs, num_steps)
    return tv.open_run(run.path)


def claim(runs: Runs) -> Claim:
    """The delay with decay, and the held-out accuracy without."""
    run, plain = runs["decay-1"], runs["decay-0"]
    learned, understood = reached(run, "accuracy.train", 0.95), reached(run, "accuracy.heldout", 0.95)
    return Claim(
        shown=understood / learned > 3 and last(plain, "accuracy.heldout") < 0.3,
        effect=understood / learned,
        effect_is="steps to 95 % held-out over steps to 95 % train accuracy, with decay",
        figures={
            "step of 95 % train accuracy": learned, "step of 95 % held-out accuracy": understood,
            "held-out accuracy at the end without decay": last(plain, "accuracy.heldout"),
            "train accuracy at the end without decay": last(plain, "accuracy.train"),
        },
    )  # fmt: skip


if __name__ == "__main__":
    alone(__file__)
