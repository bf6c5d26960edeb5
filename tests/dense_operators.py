"""Gauss-Newton and Fisher matrices formed entry by entry in float64, and snapshots of the case list."""

from contextlib import contextmanager

import torch
from naive import sample_gradients

from trainvitals.diagnostics.registry import select
from trainvitals.probes.bystander import bystander
from trainvitals.probes.snapshot import ModelSnapshot
from trainvitals.probes.subject import make_subject


@contextmanager
def snapshot_of(built, due=(), **changes):
    """A snapshot of a built case, inside the bystander."""
    arguments = {"loss": built.loss, "forward": None, "train": built.batches, "call": "test"} | changes
    subject = make_subject(built.model, **arguments)
    with bystander(subject.model, mode=subject.mode):
        yield ModelSnapshot(subject, {d.name: d for d in select(list(due))} if due else {})


@contextmanager
def math_attention():
    torch.backends.mha.set_fastpath_enabled(False)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        yield
    torch.backends.mha.set_fastpath_enabled(True)


def trainable(model):
    return [p for p in model.parameters() if p.requires_grad]


def dense_gauss_newton(model, loss, batch):
    """Jᵀ (∇²_z L) J with J and ∇²_z L formed row by row."""
    model = model.double().eval()
    x, y = batch
    with math_attention():
        z = model(x)
        rows = [torch.autograd.grad(entry, trainable(model), retain_graph=True, materialize_grads=True)
                for entry in z.reshape(-1)]  # fmt: skip
    J = torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in rows])  # (NC, P)
    M = torch.autograd.functional.hessian(lambda flat: loss(flat.view_as(z), y), z.detach().reshape(-1))
    return J.T @ M @ J


def dense_fisher(model, loss, batch):
    """The mean of g gᵀ over samples taken one by one."""
    with math_attention():
        G = sample_gradients(model.double().eval(), loss, *batch).detach()
    return G.T @ G / len(G)
