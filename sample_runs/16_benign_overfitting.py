"""Fitting every wrong label need not hurt: in many dimensions the clean test accuracy stays near perfect.

Claim: with two well-separated classes whose signal is spread over many coordinates, a network that fits all train
labels, 15 % of them wrong, still classifies clean test data almost perfectly. In few dimensions the same fit costs
accuracy. A gap between train and test says nothing by itself.

Formula: x = ±μ + noise with ‖μ‖ = 10 spread over d coordinates; compare d = 20 with d = 2,000.

Paper: Zhu, Liu, Radhakrishnan, Belkin, Cevher 2023, Benign Overfitting in Deep Neural Networks under Lazy Training.

Look at: `flipped_fit.flipped` at 1 beside `accuracy.heldout` near 1.

Falsified by: test accuracy below 0.99 at d = 2,000 once all labels are fitted.
"""

import torch

import trainvitals as tv
from trainvitals.sample_runs.claims import Claim, Runs, last
from trainvitals.sample_runs.parts import mlp, take_step, with_wrong_labels
from trainvitals.sample_runs.running import alone

ARMS = {"d-20": {"num_inputs": 20}, "d-200": {"num_inputs": 200}, "d-2000": {"num_inputs": 2000}}


def train(seed=0, *, num_inputs=2000, label_noise=0.15, learning_rate=0.02, weight_decay=0.0, width=256,
          num_steps=1000, store="runs/", name="benign-overfitting") -> tv.Run:  # fmt: skip
    """Train on 100 points, full batch, until all labels are fitted, or for `num_steps`."""
    generator = torch.Generator().manual_seed(seed)
    signal = torch.full((num_inputs,), 10 / num_inputs**0.5)
    y_true, y_test = torch.arange(100) % 2, torch.arange(1000) % 2
    x, x_test = ((2 * y[:, None] - 1) * signal + torch.randn(len(y), num_inputs, generator=generator)
                 for y in (y_true, y_test))  # fmt: skip
    scale = 8 / x.norm(dim=1).mean()
    x, x_test = scale * x, scale * x_test
    y = with_wrong_labels(y_true, label_noise, 2, generator)
    wrong = torch.nonzero(y != y_true).flatten()
    torch.manual_seed(seed)
    model, loss = mlp(num_inputs, width, 2), torch.nn.functional.cross_entropy
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9, weight_decay=weight_decay)
    with tv.watch(model, optimizer, loss=loss, train=(x, y), heldout=(x_test, y_test), name=name, store=store,
                  budget=None, every=5, inputs=False,
                  probes={"flipped_fit": {"indices": wrong.tolist()}, "accuracy.train": {}, "accuracy.heldout": {},
                          "loss.train": {}, "loss.heldout": {}}) as run:  # fmt: skip
        for step in range(num_steps):
            outputs = model(x)
            if step % 5 == 0 and bool((outputs.argmax(1) == y).all()):
                break
            take_step(optimizer, loss(outputs, y))
    return tv.open_run(run.path)


def claim(runs: Runs) -> Claim:
    """Clean test accuracy at the step at which all labels are fitted, wrong ones too."""
    tests = {arm: last(run, "accuracy.heldout") for arm, run in runs.items()}
    fitted = {arm: last(run, "flipped_fit.flipped") for arm, run in runs.items()}
    return Claim(
        shown=min(fitted.values()) == 1 and tests["d-2000"] > 0.99 and tests["d-200"] > 0.99 and tests["d-20"] < 0.99,
        effect=tests["d-2000"] - tests["d-20"],
        effect_is="clean test accuracy at d = 2,000 less that at d = 20",
        figures={f"test accuracy, {arm}": value for arm, value in tests.items()}
        | {f"wrong labels fitted, {arm}": value for arm, value in fitted.items()},
    )  # fmt: skip


if __name__ == "__main__":
    alone(__file__)
