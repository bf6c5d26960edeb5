import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trainvitals.probes.bystander import bystander
from trainvitals.probes.second_derivative import without_second_derivative
from trainvitals.probes.subject import make_subject

X, Y = torch.randn(12, 4, generator=torch.Generator().manual_seed(1)), torch.arange(12) % 3


class Distance(nn.Module):
    def __init__(self):
        super().__init__()
        self.centres = nn.Parameter(torch.randn(3, 5))

    def forward(self, x):
        return -torch.cdist(x, self.centres)


class Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(torch.tanh(x))
        return torch.tanh(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return g * (1 - ctx.saved_tensors[0] ** 2)


class Once(nn.Module):
    def forward(self, x, *, scale=1.0):
        return scale * Tanh.apply(x)


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 5), Once())
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.body(x))


class Inline(nn.Module):
    """The operation stands in the model itself, between its modules."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.last(Tanh.apply(self.first(x)))


def once_loss(outputs, targets):
    return F.cross_entropy(Tanh.apply(outputs), targets)


@pytest.mark.parametrize(
    ("model", "loss", "named"),
    [
        (nn.Sequential(nn.Linear(4, 5), Distance()), F.cross_entropy, "module '1' (Distance)"),
        (Outer(), F.cross_entropy, "module 'body.1' (Once)"),
        (Outer().bfloat16(), F.cross_entropy, "module 'body.1' (Once)"),
        (Inline(), F.cross_entropy, "the model (Inline)"),
        (nn.Linear(4, 3), once_loss, "the loss (once_loss)"),
        (nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), F.cross_entropy, ""),
    ],
    ids=["cdist", "innermost", "half precision", "inline", "loss", "nothing"],
)
def test_the_innermost_part_is_named(model, loss, named):
    before = {name: p.clone() for name, p in model.named_parameters()}
    dtype = next(iter(before.values())).dtype
    subject = make_subject(model, loss=loss, forward=None, train=(X.to(dtype), Y), call="test")
    with bystander(subject.model):
        assert without_second_derivative(subject) == named
    assert all(p.grad is None and torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert not any(m._forward_hooks for m in model.modules())
