"""Per-sample gradients equal one backward pass a sample, and a trajectory is what the steps did."""

import pytest
import torch
from cases import CASES
from torch import nn

from trainvitals.diagnostics.base import Missing
from trainvitals.probes import gradients
from trainvitals.probes.bystander import bystander
from trainvitals.probes.gradients import TrajectoryRecorder, per_sample_gradients
from trainvitals.probes.subject import make_subject


def collected(subject):
    with bystander(subject.model):
        pieces = [
            piece
            for chunk, size in zip(subject.train.chunks, subject.train.sizes, strict=True)
            for piece in per_sample_gradients(
                lambda p, b: subject.loss_and_outputs(p, b)[0], subject.parameters(), chunk, size
            )
        ]
    return torch.cat([g for g, _ in pieces]).detach(), torch.cat([loss for _, loss in pieces]).detach(), pieces


def by_loop(model, loss, batch):
    model.eval()
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for x, y in zip(*batch, strict=True):
        found = torch.autograd.grad(loss(model(x[None]), y[None]), parameters, materialize_grads=True)
        rows.append(torch.cat([g.reshape(-1) for g in found]))
    return torch.stack(rows)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_they_equal_one_backward_pass_a_sample(case, monkeypatch):
    monkeypatch.setattr(gradients, "_PIECE_BYTES", 10_000)  # several pieces a chunk
    built = case.build()
    subject = make_subject(built.model, loss=built.loss, forward=None, train=built.batches, call="test")
    rows, losses, pieces = collected(subject)
    assert len(pieces) > len(subject.train.sizes)
    torch.testing.assert_close(rows, by_loop(built.model, built.loss, built.batch))
    torch.testing.assert_close(losses.mean(), built.loss(built.model(built.batch[0]), built.batch[1]).detach())


def test_a_model_that_vmap_refuses_is_done_sample_by_sample():
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x):
            if x.sum() > 0:  # control flow on data: vmap cannot
                x = x * 2
            return self.head(self.lstm(x)[0][:, -1])

    model, batch = Recurrent().double(), (torch.randn(6, 5, 3).double(), torch.arange(6) % 2)
    subject = make_subject(model, loss=nn.functional.cross_entropy, forward=None, train=batch, call="test")
    rows, _, _ = collected(subject)
    torch.testing.assert_close(rows, by_loop(model, nn.functional.cross_entropy, batch))


def test_the_trajectory_is_what_the_last_two_steps_did():
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    names = {p: name for name, p in model.named_parameters()}
    recorder = TrajectoryRecorder(lambda: names, lambda step: step == 3)
    weights, grads = [model.weight.detach().clone()], []
    for step in range(1, 5):
        optimizer.zero_grad()
        model(torch.randn(4, 2)).square().mean().backward()
        recorder.before_step(optimizer, step)
        optimizer.step()
        recorder.after_step(optimizer, step)
        weights.append(model.weight.detach().clone())
        grads.append(model.weight.grad.clone())
        if step == 3:
            trajectory = recorder.at(step)
            assert torch.equal(trajectory.update["weight"], weights[3] - weights[2])
            assert torch.equal(trajectory.previous_update["weight"], weights[2] - weights[1])
            assert torch.equal(trajectory.gradient["weight"], grads[2])
            assert torch.equal(trajectory.previous_gradient["weight"], grads[1])
    with pytest.raises(Missing):
        recorder.at(4)  # nobody asked: nothing was copied
