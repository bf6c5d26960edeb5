"""Accelerate: the loop is your own; the tracker puts what `accelerator.log` is given beside the probes' numbers.

`python examples/accelerate_digits.py --store runs/`
"""

import argparse

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainvitals as tv
from trainvitals.integrations.accelerate import TrainVitalsTracker


def main() -> None:
    """Train for a few epochs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", default="runs/", help="folder for the run")
    store = parser.parse_args().store
    torch.manual_seed(0)
    digits = load_digits()
    x, y = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    run = tv.watch(model, optimizer, loss=F.cross_entropy, train=(x[:512], y[:512]), heldout=(x[1200:], y[1200:]),
                   store=store, name="accelerate-digits", every=5)  # fmt: skip
    accelerator = Accelerator(cpu=True, log_with=TrainVitalsTracker(run))
    accelerator.init_trackers("digits", config={"lr": 3e-3})
    loader = DataLoader(TensorDataset(x[:1200], y[:1200]), batch_size=64, shuffle=True)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    for _ in range(3):
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            accelerator.backward(loss)
            optimizer.step()
            accelerator.log({"running_loss": loss})
    accelerator.end_training()


if __name__ == "__main__":
    main()
