"""With few samples of a class, descent first raises that class's loss; equal pulls of the classes repair it.

Claim: gradients of classes oppose each other, and under imbalance the majority's wins: full-batch descent, which lowers
the mean loss at every step, at first raises the loss of the minority. Scaling the two class gradients to one length
removes it.

Formula: step = −η (ĝ_majority + ĝ_minority) · 0.1, with ĝ = g/‖g‖, in place of −η ∇L.

Paper: Francazi, Baity-Jesi, Lucchi 2023, A Theoretical Analysis of the Learning Dynamics under Class Imbalance.

Look at: `per_class.loss_train` over steps, and `grad.per_class.cosine`, which is far below 0.

Falsified by: a minority loss that does not rise under plain descent, or one that rises with equal pulls.
"""

import torch

import trainvitals as tv
from trainvitals.sample_runs.claims import Claim, Runs, course, last
from trainvitals.sample_runs.parts import digits, mlp
from trainvitals.sample_runs.running import alone

ARMS = {"plain": {"equal_pulls": False}, "equal-pulls": {"equal_pulls": True}, "balanced": {"ratio": 1}}


def train(seed=0, *, ratio=20, equal_pulls=False, learning_rate=0.1, weight_decay=0.0, width=64, num_steps=400,
          store="runs/", name="class-imbalance") -> tv.Run:  # fmt: skip
    """Tell 3s (class 0) from 8s (class 1), with `ratio` times as many 3s, full batch."""
    data = digits(1400, seed)
    threes, eights = (data.x[data.y == c] for c in (3, 8))
    eights = eights[: max(len(threes) // ratio, 1)]
    x, y = torch.cat([threes, eights]), torch.tensor([0] * len(threes) + [1] * len(eights))
    test = torch.cat([data.x_test[data.y_test == c] for c in (3, 8)])
    y_test = torch.tensor([c for c, digit in enumerate((3, 8)) for _ in range(int((data.y_test == digit).sum()))])
    torch.manual_seed(seed)
    model, loss = mlp(64, width, 2), torch.nn.functional.cross_entropy
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    with tv.watch(model, optimizer, loss=loss, train=(x, y), heldout=(test, y_test), name=name, store=store,
                  budget=None, probes=["loss.train", "per_class", "grad.per_class"],
                  every={"loss": 4, "per_class": 4, "grad": 100}) as run:  # fmt: skip
        for _ in range(num_steps):
            optimizer.zero_grad()
            if equal_pulls:
                for c in (0, 1):
                    pull = torch.autograd.grad(loss(model(x[y == c]), y[y == c]), list(model.parameters()))
                    length = torch.stack([g.square().sum() for g in pull]).sum().sqrt()
                    for p, g in zip(model.parameters(), pull, strict=True):
                        p.grad = (0 if p.grad is None else p.grad) + 0.1 * g / length
            else:
                loss(model(x), y).backward()
            optimizer.step()
    return tv.open_run(run.path)


def claim(runs: Runs) -> Claim:
    """By how much the minority's loss rises above its start, and its recall at the end."""
    rise = {arm: float((losses := course(run, "per_class.loss_train", "1")[1]).max() - losses[0])
            for arm, run in runs.items()}  # fmt: skip
    recall = {arm: last(run, "per_class.accuracy_heldout", "1") for arm, run in runs.items()}
    return Claim(
        shown=rise["plain"] > 1.0 and rise["equal-pulls"] < 0.1 and rise["balanced"] < 0.1
        and recall["equal-pulls"] > recall["plain"] + 0.1,
        effect=rise["plain"],
        effect_is="rise of the minority's loss above its start, nats",
        figures={f"rise, {arm}": value for arm, value in rise.items() if arm != "plain"}
        | {f"minority recall at the end, {arm}": value for arm, value in recall.items()}
        | {"cosine of the class gradients at the start": float(course(runs["plain"], "grad.per_class.cosine")[1][0])},
    )  # fmt: skip


if __name__ == "__main__":
    alone(__file__)
