"""fastai: the watch begins when the Learner has made its optimiser, and ends with the fit.

`pip install fastai`, then `python examples/fastai_digits.py --store runs/`.
"""

import argparse

import torch
import torch.nn.functional as F
from fastai.basics import Callback, DataLoader, DataLoaders, Learner
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

import trainvitals as tv


class Watching(Callback):
    """Watch what a Learner fits; `options` are those of `trainvitals.watch`."""

    def __init__(self, **options) -> None:
        super().__init__()
        self.watch_options = options

    def before_fit(self) -> None:
        """Begin: fastai's optimiser is its own, and `OptimWrapper` leads to torch's."""
        optimizer = getattr(self.learn.opt, "opt", self.learn.opt)
        self.watched = tv.watch(self.learn.model, optimizer, loss=self.learn.loss_func, **self.watch_options)

    def after_batch(self) -> None:
        """Record the running loss of training."""
        if self.learn.training:
            self.watched.log(running_loss=self.learn.loss)

    def after_fit(self) -> None:
        """End the run."""
        self.watched.close()


def main() -> None:
    """Train for a few epochs."""
    from fastai.optimizer import OptimWrapper

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", default="runs/", help="folder for the run")
    store = parser.parse_args().store
    torch.manual_seed(0)
    digits = load_digits()
    x, y = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    train, held_out = TensorDataset(x[:1200], y[:1200]), TensorDataset(x[1200:], y[1200:])
    loaders = DataLoaders(DataLoader(train, bs=64, shuffle=True), DataLoader(held_out, bs=256))

    def torch_sgd(parameters, lr):
        return OptimWrapper(parameters, torch.optim.SGD, lr=lr, momentum=0.9)

    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    watching = Watching(train=(x[:512], y[:512]), heldout=(x[1200:], y[1200:]), store=store, name="fastai-digits",
                        every=5)  # fmt: skip
    learner = Learner(loaders, model, loss_func=F.cross_entropy, opt_func=torch_sgd, cbs=[watching])
    with learner.no_logging():
        learner.fit(3, lr=0.1)


if __name__ == "__main__":
    main()
