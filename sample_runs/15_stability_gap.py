"""Right after a switch of task the old task drops and then recovers; measuring once an epoch hides it.

Claim: when training goes over to a new task, accuracy on the old one falls sharply within a few steps and comes back,
even with old samples replayed in every batch. Only measuring at every step shows it. Momentum makes it deeper.

Formula: depth = A_old(s) − min over t > s of A_old(t), with s the step of the switch.

Paper: De Lange, van de Ven, Tuytelaars 2023, Continual evaluation for lifelong learning: Identifying the stability gap.

Look at: `heldout.accuracy` of the set `old` at every step round the switch at step 500, and `task.gap.depth`.

Falsified by: old-task accuracy that falls by less than ten points, or comes back by less than ten from its lowest.
"""

import torch

import trainvitals as tv
from trainvitals.sample_runs.claims import Claim, Runs, course, last
from trainvitals.sample_runs.parts import descend, digits, mlp, take_step
from trainvitals.sample_runs.running import alone

ARMS = {"momentum": {}, "plain": {"learning_rate": 0.2, "momentum": 0.0}}
SWITCH = 500


def train(seed=0, *, learning_rate=0.05, momentum=0.9, weight_decay=0.0, width=100, batch_size=32, num_steps=400,
          store="runs/", name="stability-gap") -> tv.Run:  # fmt: skip
    """Train on digits 0 to 4 for 500 steps, then on 5 to 9 with as many of 100 stored old digits in each batch."""
    data = digits(1000, seed)
    is_old, is_old_test = data.y < 5, data.y_test < 5
    sets = {"old": (data.x_test[is_old_test], data.y_test[is_old_test]),
            "new": (data.x_test[~is_old_test], data.y_test[~is_old_test])}  # fmt: skip
    old, new = (data.x[is_old], data.y[is_old]), (data.x[~is_old], data.y[~is_old])
    torch.manual_seed(seed)
    model, loss = mlp(64, width, 10), torch.nn.functional.cross_entropy
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=momentum, weight_decay=weight_decay)
    every_step = tv.at_steps([*range(0, SWITCH, 25), *range(SWITCH, SWITCH + 200), *range(SWITCH + 200, 2000, 5)])
    with tv.watch(model, optimizer, loss=loss, train=data.train, heldout=sets, name=name, store=store, budget=None,
                  probes={"heldout": {}, "task": {"switches": [SWITCH]}}, every=every_step) as run:  # fmt: skip
        descend(model, optimizer, loss, old, SWITCH, batch_size=batch_size, seed=seed)
        for _ in range(num_steps):
            fresh = torch.randint(0, len(new[1]), (batch_size,))
            stored = torch.randint(0, 100, (batch_size,))
            x, y = torch.cat([new[0][fresh], old[0][stored]]), torch.cat([new[1][fresh], old[1][stored]])
            take_step(optimizer, loss(model(x), y))
    return tv.open_run(run.path)


def claim(runs: Runs) -> Claim:
    """How deep the old task's accuracy falls, and how much of that it gets back."""
    steps, accuracy = course(runs["momentum"], "heldout.accuracy", "old")
    plain = course(runs["plain"], "heldout.accuracy", "old")[1]
    after = steps[steps > SWITCH]
    before = float(accuracy[steps <= SWITCH][-1])
    lowest, end = float(accuracy[steps > SWITCH].min()), float(accuracy[-20:].mean())
    return Claim(
        shown=before - lowest > 0.1 and end - lowest > 0.1,
        effect=before - lowest,
        effect_is="fall of the old task's accuracy after the switch",
        figures={
            "before the switch": before, "lowest": lowest, "at the end": end,
            "steps from the switch to the lowest": float(after[accuracy[-len(after) :].argmin()] - SWITCH),
            "new task at the end": last(runs["momentum"], "heldout.accuracy", "new"),
            "lowest without momentum": float(plain[steps > SWITCH].min()),
            "at the end without momentum": float(plain[-20:].mean()),
        },
    )  # fmt: skip


if __name__ == "__main__":
    alone(__file__)
