"""Between two networks trained apart lies a barrier; between two that share their first steps there is none.

Claim: networks from different starts end in valleys that a straight line between their weights does not connect: in the
middle the loss is higher than at both ends. Copies of one run that go on with other batches stay in one valley.

Formula: barrier = max over α of L((1 − α)θ_a + αθ_b) − ((1 − α)L_a + αL_b).

Paper: Frankle, Dziugaite, Roy, Carbin 2020, Linear Mode Connectivity and the Lottery Ticket Hypothesis; Ainsworth,
Hayase, Srinivasa 2023, Git Re-Basin.

Look at: `path.against.curve_heldout`, the loss along the line, `path.against.height_heldout`, and
`path.against.cka`: the features of independent networks are alike, only their units stand in another order.

Falsified by: a barrier between copies of one run, or none between independent ones.
"""

import tempfile
from pathlib import Path

import torch

import trainvitals as tv
from trainvitals.sample_runs.claims import Claim, Runs, last
from trainvitals.sample_runs.parts import descend, digits, mlp
from trainvitals.sample_runs.running import alone

ARMS = {"independent": {"shared_steps": -1}, "from-the-start": {"shared_steps": 0}, "after-100": {"shared_steps": 100}}
NUM_TRAIN = 1000


def train(seed=0, *, shared_steps=100, learning_rate=0.05, weight_decay=0.0, width=256, batch_size=50, num_steps=1000,
          store="runs/", name="loss-barrier") -> tv.Run:  # fmt: skip
    """Train two networks and measure between them; shared_steps=-1 gives them starts of their own.

    Both are seen every 200 steps, and compared at equal steps.
    """
    data, loss = digits(NUM_TRAIN, seed), torch.nn.functional.cross_entropy

    def build():
        return mlp(64, width, width, 10)

    with tempfile.TemporaryDirectory() as folder:
        for twin in ("a", "b"):
            torch.manual_seed(seed + 1000 * (twin == "b" and shared_steps < 0))
            model = build()
            optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9, weight_decay=weight_decay)
            descend(model, optimizer, loss, data.train, max(shared_steps, 0), batch_size=batch_size, seed=seed)
            (Path(folder) / twin).mkdir()
            for part in range(6):
                torch.save(model.state_dict(), Path(folder) / twin / f"step_{part * num_steps // 5}.pt")
                order = 10 * (2 * seed + (twin == "b")) + part + 1
                descend(model, optimizer, loss, data.train, num_steps // 5 * (part < 5), batch_size=batch_size,
                        seed=order)  # fmt: skip
        return tv.analyze(Path(folder) / "a", against=Path(folder) / "b", build=build, batch=data.train,
                          heldout=data.test, loss=loss, what=["loss.train", "loss.heldout", "accuracy"],
                          workers=1, store=store, name=name, resume=False)  # fmt: skip


def claim(runs: Runs) -> Claim:
    """The barrier on held-out loss at the end of each pair."""
    heights = {arm: last(run, "path.against.height_heldout") for arm, run in runs.items()}
    return Claim(
        shown=heights["independent"] > 0.1 and heights["from-the-start"] < 0.02 and heights["after-100"] < 0.02,
        effect=heights["independent"],
        effect_is="barrier between independent networks on held-out loss, nats",
        figures={f"barrier, {arm}": value for arm, value in heights.items()}
        | {f"similarity of features (CKA), {arm}": last(run, "path.against.cka") for arm, run in runs.items()},
    )  # fmt: skip


if __name__ == "__main__":
    alone(__file__)
