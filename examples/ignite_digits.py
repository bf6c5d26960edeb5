"""Ignite: the engine's own step, with a watch around the run.

`pip install pytorch-ignite`, then `python examples/ignite_digits.py --store runs/`.
"""

import argparse

import torch
import torch.nn.functional as F
from ignite.engine import Engine, Events, create_supervised_trainer
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainvitals as tv


def main() -> None:
    """Train for a few epochs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", default="runs/", help="folder for the run")
    store = parser.parse_args().store
    torch.manual_seed(0)
    digits = load_digits()
    x, y = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    trainer = create_supervised_trainer(model, optimizer, F.cross_entropy)
    loader = DataLoader(TensorDataset(x[:1200], y[:1200]), batch_size=64, shuffle=True)
    with tv.watch(model, optimizer, loss=F.cross_entropy, train=(x[:512], y[:512]), heldout=(x[1200:], y[1200:]),
                  store=store, name="ignite-digits", every=5) as run:  # fmt: skip

        @trainer.on(Events.ITERATION_COMPLETED)
        def log(engine: Engine) -> None:
            run.log(running_loss=engine.state.output)

        trainer.run(loader, max_epochs=3)


if __name__ == "__main__":
    main()
