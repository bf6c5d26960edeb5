"""What is refused before a run starts, and what looks odd and is not: random losses, state, half a forward."""

import itertools
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import trainvitals as tv
from trainvitals.probes.subject import make_subject

X, Y = torch.randn(12, 4, generator=torch.Generator().manual_seed(1)), torch.arange(12) % 3


CALLS = itertools.count()


class Net(nn.Module):
    """An MLP with something in the middle."""

    def __init__(self, middle) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.middle = nn.Linear(4, 8), nn.Linear(8, 3), middle

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.middle(self.first(x))))


class OwnGenerator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(3)

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * torch.randn(x.shape, generator=self.generator)


class Remembers(nn.Module):
    """Mixes in what the pass before saw, as a layer with hidden states does."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        mixed = x if self.hidden is None else x + 0.5 * self.hidden
        self.hidden = x.detach()
        return mixed


def subject_of(middle, **changes):
    arguments = {"loss": F.cross_entropy, "forward": None, "train": (X, Y), "call": "tv.test"} | changes
    return make_subject(Net(middle), **arguments)


@pytest.mark.parametrize(
    "middle",
    [
        lambda x: x + 0.1 * np.random.randn(),
        lambda x: x * random.random(),
        OwnGenerator(),
        Remembers(),
        lambda x: x / (1 + next(CALLS)),
    ],
    ids=["numpy", "random", "own generator", "hidden state", "counter"],
)
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_loss_that_differs_between_two_passes_is_refused_with_the_usual_causes(middle, mode):
    words = r"expected the same loss.*got \d.* and then .*in tv.test with .*usual causes: .*take them out of the probe"
    with pytest.raises(ValueError, match=words):
        subject_of(middle, mode=mode)


class Counts(nn.Module):
    """A buffer that counts passes and sets the scale, as a warm-up inside a layer does."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
        return x * self.calls.clamp(min=1)


@pytest.mark.parametrize(
    "middle",
    [
        nn.Dropout(0.5),
        nn.RReLU(),
        lambda x: F.dropout(x, 0.2),  # always on
        nn.BatchNorm1d(8),
        spectral_norm(nn.Linear(8, 8)),
        torch.nn.utils.spectral_norm(nn.Linear(8, 8)),
        Counts(),
        lambda x: x + 0.1 * torch.randn_like(x),
        lambda x: x * (1 + 1e-8 * random.random()),  # as much as rounding
    ],
    ids=["dropout", "rrelu", "dropout always", "batch norm", "spectral norm", "spectral norm by hook", "buffer",
         "torch noise", "rounding"],
)  # fmt: skip
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_what_is_seeded_or_begins_with_the_same_buffers_is_measured(middle, mode):
    with torch.random.fork_rng():
        reading = tv.measure(Net(middle).train(), loss=F.cross_entropy, batch=(X, Y), mode=mode, what=["hessian.top"])
    assert reading["hessian.top"].missing is None


@pytest.mark.parametrize(
    ("returned", "got"), [((1, 2, 3, 4), "4 values"), (torch.zeros(()), "got Tensor"), ((torch.zeros(1),), "1 values")]
)
def test_forward_that_returns_something_else_is_refused(returned, got):
    with pytest.raises(ValueError, match=rf"expected \(outputs, loss\) or .*from forward=, .*{got}"):
        subject_of(nn.Identity(), loss=None, forward=lambda model, batch: returned)


@pytest.mark.parametrize("seed", range(3))
def test_a_loss_that_is_not_a_number_twice_is_no_random_one(seed):
    assert subject_of(lambda x: x * float("nan"), seed=seed).train.num_samples == 12
