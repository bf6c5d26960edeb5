"""After one step a network fits all labels, wrong ones too, and is no better than chance; later it is nearly perfect.

Claim: on four clusters labelled by XOR, with some labels wrong, one step of descent fits every train label while test
accuracy stays near chance: it is a linear classifier in disguise. Further steps find the XOR features, test accuracy
becomes near-optimal, and the wrong labels stay fitted. Overfitting turns from harmful to benign.

Formula: x = ±μ₁ (class 1) or ±μ₂ (class 0) plus unit noise, ‖μ‖ = 16, μ₁ ⊥ μ₂; f(x) = Σ_j a_j relu(w_jᵀx), a fixed.

Paper: Xu, Wang, Frei, Vardi, Hu 2024, Benign Overfitting and Grokking in ReLU Networks for XOR Cluster Data.

Look at: `accuracy.train`, `flipped_fit.flipped` and `accuracy.heldout` over logarithmic steps.

Falsified by: a train accuracy below 1 or a test accuracy above 0.65 after the first step, a test accuracy below 0.9 at
the end, or wrong labels that are no longer fitted then.
"""

import torch
from torch import nn

import trainvitals as tv
from trainvitals.sample_runs.claims import Claim, Runs, at, last
from trainvitals.sample_runs.parts import descend, with_wrong_labels
from trainvitals.sample_runs.running import alone

ARMS = {"xor": {}}


class FixedReadout(nn.Module):
    """One trained ReLU layer; half of its units vote for class 1 and half for class 0."""

    def __init__(self, num_inputs: int, width: int):
        super().__init__()
        self.hidden = nn.Linear(num_inputs, width, bias=False)
        self.relu = nn.ReLU()
        nn.init.normal_(self.hidden.weight, std=1e-4)
        self.register_buffer("votes", (1 - 2.0 * (torch.arange(width) % 2)) / width**0.5)

    def forward(self, x):
        """Return logits (N, 2), the first of them 0."""
        vote = self.relu(self.hidden(x)) @ self.votes
        return torch.stack([torch.zeros_like(vote), vote], dim=1)


def clusters(num: int, num_inputs: int, norm: float, generator: torch.Generator):
    """Return x (num, D) and y (num,): the cluster's axis is the class."""
    y, sign = torch.randint(0, 2, (2, num), generator=generator)
    x = torch.randn(num, num_inputs, generator=generator)
    x[torch.arange(num), y] += norm * (2 * sign - 1)
    return x, y


def train(seed=0, *, num_inputs=8000, norm=16.0, label_noise=0.15, learning_rate=0.02, width=300, num_steps=200,
          store="runs/", name="xor-grokking") -> tv.Run:  # fmt: skip
    """Train on 100 points, full batch."""
    generator = torch.Generator().manual_seed(seed)
    x, y_true = clusters(100, num_inputs, norm, generator)
    y = with_wrong_labels(y_true, label_noise, 2, generator)
    torch.manual_seed(seed)
    model, loss = FixedReadout(num_inputs, width), nn.functional.cross_entropy
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    wrong = torch.nonzero(y != y_true).flatten().tolist()
    with tv.watch(model, optimizer, loss=loss, train=(x, y), heldout=clusters(1000, num_inputs, norm, generator),
                  name=name, store=store, budget=None, every=tv.log_spaced(12), inputs=False,
                  probes={"accuracy.train": {}, "accuracy.heldout": {}, "loss.train": {}, "loss.heldout": {},
                          "flipped_fit": {"indices": wrong}}) as run:  # fmt: skip
        descend(model, optimizer, loss, (x, y), num_steps)
    return tv.open_run(run.path)


def claim(runs: Runs) -> Claim:
    """Train, wrong-label and test accuracy after the first step and at the end."""
    run = runs["xor"]
    first, end = at(run, "accuracy.heldout", 1), last(run, "accuracy.heldout")
    fitted = min(at(run, "accuracy.train", 1), last(run, "flipped_fit.flipped"))
    return Claim(
        shown=fitted == 1 and first < 0.65 and end > 0.9,
        effect=end - first,
        effect_is="test accuracy at the end less that after the first step",
        figures={
            "train accuracy after one step": at(run, "accuracy.train", 1), "test accuracy after one step": first,
            "test accuracy at the end": end, "wrong labels fitted at the end": last(run, "flipped_fit.flipped"),
        },
    )  # fmt: skip


if __name__ == "__main__":
    alone(__file__)
