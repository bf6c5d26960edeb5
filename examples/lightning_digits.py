"""Lightning: the callback watches what a Trainer trains, and records what the module logs.

`python examples/lightning_digits.py --store runs/`
"""

import argparse
import warnings

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from trainvitals.integrations.lightning import TrainVitalsCallback


class Digits(LightningModule):
    """A small network for 8×8 digits."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        self.loss_fn = nn.CrossEntropyLoss()  # found by the callback

    def forward(self, x):
        """Return logits (N, 10)."""
        return self.net(x)

    def training_step(self, batch, _):
        """Return the loss of a batch."""
        loss = self.loss_fn(self(batch[0]), batch[1])
        self.log("running_loss", loss)
        return loss

    def validation_step(self, batch, _):
        """Log the loss of a batch."""
        self.log("val_loss", self.loss_fn(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        """Return the optimiser whose steps are counted."""
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def main() -> None:
    """Train for a few epochs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", default="runs/", help="folder for the run")
    store = parser.parse_args().store
    seed_everything(0, verbose=False)
    digits = load_digits()
    x, y = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    train, held_out = TensorDataset(x[:1200], y[:1200]), TensorDataset(x[1200:], y[1200:])
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    trainer = Trainer(max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False,
                      enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=5,
                      callbacks=[TrainVitalsCallback(store=store, name="lightning-digits", every=5)])  # fmt: skip
    trainer.fit(Digits(), DataLoader(train, batch_size=64, shuffle=True), DataLoader(held_out, batch_size=256))


if __name__ == "__main__":
    main()
