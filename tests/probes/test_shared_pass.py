"""What is not dear in a preset takes one forward pass over each probe and one backward pass, counted where they run."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trainvitals as tv
from trainvitals.diagnostics.registry import select

DOCS = Path(__file__).parents[2] / "docs" / "cost.md"
N, M = 24, 16  # samples of the train and of the held-out probe; training has batches of one


class Counted(nn.Module):
    """Notes the batch size of every call."""

    calls: list[int] = []

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
            nn.Linear(144, 3),
        )  # fmt: skip

    def forward(self, x):
        Counted.calls.append(len(x))
        return self.net(x)


@pytest.fixture
def engine_runs(monkeypatch):
    """Every run of the autograd engine, counted at its one entrance."""
    runs, run = [], torch.autograd._engine_run_backward

    def counted(*args, **kwargs):
        runs.append(1)
        return run(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "_engine_run_backward", counted)
    return runs


def counted_at_one_step(tmp_path, engine_runs, preset):
    """Return batch sizes of the model's calls and the engine's runs at step 2 of a run, those of training left out.

    All of the preset but what is dear: products, gradients by sample and passes at other weights are counted in
    `test_snapshot.py`.
    """
    torch.manual_seed(0)
    model, y = Counted(), torch.arange(N) % 3
    x = torch.randn(N, 64)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    batches = {"train": (x, y), "heldout": (torch.randn(M, 64), y[:M])}
    what = [d.name for d in select(preset) if not d.is_dear()]
    with tv.watch(
        model, optimizer, loss=F.cross_entropy, **batches, store=tmp_path, probes=what, every=2, budget=None
    ) as run:
        for step in (1, 2):
            if step == 2:
                Counted.calls.clear()
                engine_runs.clear()
            optimizer.zero_grad()
            F.cross_entropy(model(x[:2]), y[:2]).backward()
            optimizer.step()
    calls, runs = list(Counted.calls), len(engine_runs)
    calls.remove(2)  # the training step's own
    with tv.open_run(run.path) as read:
        measured = [name for name, (step, reading) in read.latest().items() if step == 2 and reading.missing is None]
    return calls, runs - 1, measured


@pytest.mark.parametrize(
    ("preset", "forward", "backward", "least"),
    [("light", [], 0, 4), ("default", [M, N], 1, 25), ("full", [M, N], 1, 90)],
)
def test_a_step_takes_one_pass_over_each_probe_and_one_backward_pass(
    tmp_path, engine_runs, preset, forward, backward, least
):
    calls, runs, measured = counted_at_one_step(tmp_path, engine_runs, preset)
    assert sorted(calls) == forward
    assert runs == backward
    assert len(measured) >= least  # numbers that these passes gave
    stated = f"`{preset}`: {len(forward)} forward and {backward} backward"
    assert stated in DOCS.read_text(), f"expected docs/cost.md to say {stated!r}"
