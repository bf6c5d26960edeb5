"""Trainings whose model, step or optimiser is compiled."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainings.base import (
    Training,
    forever,
    kind,
    mlp,
    small,
)


class Held(nn.Module):
    """A module of the user's own around one of torch's, whose calls are not compiled in place."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def _compiled(device, backend, wrap):
    torch.compiler.reset()  # both runs compile anew
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return torch._dynamo.lookup_backend(backend)(graph, inputs)

    t = wrap(small(device, Held), counting)
    t.beside["number of graphs"] = graphs_compiled = [0]
    t.is_genuine = lambda: bool(graphs)
    yield t
    for _ in forever(t):
        graphs_compiled[0] = len(graphs)
        yield


def _wrapped(t: Training, backend: Callable) -> Training:
    t.model = torch.compile(t.model, backend=backend)
    return t


def _in_place(t: Training, backend: Callable) -> Training:
    t.model.compile(backend=backend)
    return t


@kind
def compiled_model(device):
    yield from _compiled(device, "aot_eager", _wrapped)


@kind
def compiled_in_place(device):
    yield from _compiled(device, "aot_eager", _in_place)


@kind
def compiled_by_inductor(device):
    yield from _compiled(device, "inductor", _wrapped)


@kind
def compiled_optimizer_step(device):
    torch.compiler.reset()
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph

    t = small(device, optimizer=lambda m: torch.optim.Adam(m.parameters(), torch.tensor(3e-3)))
    t.is_genuine = lambda: bool(graphs)
    yield t

    @torch.compile(backend=counting)
    def step():
        t.optimizer.step()

    while True:
        t.backward()
        step()
        yield


@kind
def compiled_loss_and_step_together(device):
    torch.compiler.reset()
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph

    t = small(device)
    t.is_genuine = lambda: bool(graphs)
    yield t

    @torch.compile(backend=counting)
    def whole(x, y):
        t.optimizer.zero_grad()
        loss = F.cross_entropy(t.model(x), y)
        loss.backward()
        t.optimizer.step()
        return loss

    while True:
        t.losses.append(whole(*t.batch()).item())
        yield
