"""The model as a function of its inputs: gradients against autograd on the model itself, and what is refused."""

import pytest
import torch
import torch.nn.functional as F
from cases import CASES
from torch import nn

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.input_loss import input_gradient
from trainvitals.probes.bystander import bystander
from trainvitals.probes.input_losses import input_losses
from trainvitals.probes.subject import make_subject


def losses_of(model, **arguments):
    subject = make_subject(model, call="test", **({"forward": None, "loss": F.cross_entropy} | arguments))
    return subject, input_losses(subject, subject.parameters(), subject.train)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_gradient_outputs_and_losses_are_those_of_the_model(case):
    built = case.build()
    subject, found = losses_of(built.model, loss=built.loss, train=built.batches)
    assert [loss.num_samples for loss in found] == [len(x) for x, _ in built.batches]
    for p in built.model.parameters():
        p.grad = torch.full_like(p, 7.0)
    for loss, (x, y) in zip(found, built.batches, strict=True):
        with bystander(built.model, mode="eval", beside=subject.beside):
            gradient = input_gradient(loss, x)
            outputs, losses = loss.outputs_and_losses(x)
        assert all((p.grad == 7.0).all() for p in built.model.parameters())
        model, leaf = built.model.eval(), x.clone().requires_grad_()
        expected = torch.stack([built.loss(model(leaf[i : i + 1]), y[i : i + 1]) for i in range(len(x))])
        torch.testing.assert_close(losses, expected.detach())
        torch.testing.assert_close(outputs, model(x).detach())
        torch.testing.assert_close(gradient, torch.autograd.grad(expected.mean(), leaf)[0])


def test_what_has_no_inputs_to_change_says_why():
    x, y = torch.zeros(4, 2, dtype=torch.long), torch.zeros(4, dtype=torch.long)
    with pytest.raises(Missing, match=r"torch\.int64: small changes of them have no meaning"):
        losses_of(nn.Sequential(nn.Embedding(3, 2), nn.Flatten(), nn.Linear(4, 3)), train=(x, y))

    def forward(model, batch):
        return model(batch), model(batch).square().mean()

    with pytest.raises(Missing, match="through forward="):
        losses_of(nn.Linear(2, 1), loss=None, forward=forward, train=torch.zeros(4, 2))


class Indifferent(nn.Module):
    def __init__(self):
        super().__init__()
        self.z = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return self.z.expand(len(x), 3)


class Structure(nn.Linear):
    def forward(self, x):
        return {"logits": super().forward(x)}


def test_outputs_that_do_not_depend_on_the_inputs_or_are_no_tensor_say_so():
    batch = (torch.ones(4, 2), torch.zeros(4, dtype=torch.long))
    _, (loss,) = losses_of(Indifferent(), train=batch)
    with pytest.raises(Missing, match="no gradient by the inputs"):
        input_gradient(loss, loss.inputs)
    _, (loss,) = losses_of(Structure(2, 3), train=batch, loss=lambda z, y: F.cross_entropy(z["logits"], y))
    with pytest.raises(Missing, match="are a dict, not one tensor"):
        loss.outputs(loss.inputs)
    model = nn.Linear(2, 3)
    nn.init.constant_(model.weight, torch.nan)
    _, (loss,) = losses_of(model, train=batch)
    with pytest.raises(Missing, match="NaN or Inf"):
        input_gradient(loss, loss.inputs)


def test_a_loss_that_is_no_mean_over_samples_says_so():
    weights = nn.CrossEntropyLoss(torch.tensor([1.0, 5.0]))
    batch = (torch.randn(4, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 1, 0]))
    _, (loss,) = losses_of(nn.Linear(2, 2), train=batch, loss=weights)
    with pytest.raises(Missing, match="not the mean of its samples' losses"):
        loss.outputs_and_losses(loss.inputs)
