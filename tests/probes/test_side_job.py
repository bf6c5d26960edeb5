"""What travels to the process beside training, and what does not."""

from __future__ import annotations

from multiprocessing import Pipe

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trainvitals.diagnostics.registry import select
from trainvitals.probes.side_job import Answer, Numerics, beginning_of, heard, job_of, say
from trainvitals.probes.side_packing import packed, unpacked
from trainvitals.probes.subject import make_subject
from trainvitals.schema import Reading


def make():
    torch.manual_seed(0)
    x, y = torch.randn(12, 4), torch.arange(12) % 3
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    F.cross_entropy(model(x), y).backward()
    optimizer.step()
    subject = make_subject(
        model, loss=F.cross_entropy, forward=None, train=(x, y), heldout=(x[:5], y[:5]), optimizer=optimizer,
        mode="eval", seed=3, call="a test",
    )  # fmt: skip
    return subject, model, optimizer


def test_the_optimisers_state_travels_only_to_who_needs_it():
    subject, model, _ = make()
    num_parameters = len(list(model.parameters()))
    _, without = packed(job_of(subject, select(["hessian.top"]), 7, 0.0))
    _, with_state = packed(job_of(subject, select(["stability"]), 7, 0.0))
    assert len(without) == num_parameters
    assert len(with_state) == num_parameters * 4  # weights, step, two moments


def test_the_optimiser_is_seen_as_it_stands():
    subject, model, optimizer = make()
    body, tensors = packed(job_of(subject, select(["stability"]), 7, 0.0))
    view = unpacked(body, [t.detach().clone() for t in tensors]).optimizer
    assert view.kind == "Adam"
    assert view.groups[0].options["lr"] == 0.01
    assert view.groups[0].names == tuple(name for name, _ in model.named_parameters())
    for name, p in model.named_parameters():
        assert torch.equal(view.state[name]["exp_avg_sq"], optimizer.state[p]["exp_avg_sq"])


def test_the_probes_and_the_weights_at_the_start_travel_once():
    subject, model, _ = make()
    subject.initial_parameters = subject.weights_at_start()
    body, tensors = packed(beginning_of(subject, select(["hessian.top"])))
    found = unpacked(body, [t.detach().clone() for t in tensors])
    assert found.train.hash == subject.train.hash
    assert found.heldout is found.heldout_sets["heldout"]  # diagnostics tell the main set by identity
    assert found.seed == 3
    assert list(found.initial_parameters) == [name for name, _ in model.named_parameters()]
    assert {id(t) for t in tensors}.isdisjoint({id(p) for p in model.parameters()})


def test_switches_of_torch_travel():
    before = Numerics.now()
    try:
        torch.set_default_dtype(torch.float64)
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.set_float32_matmul_precision("high")
        there = Numerics.now()
        before.apply(torch.device("cpu"))
        assert Numerics.now() == before
        there.apply(torch.device("cpu"))
        assert Numerics.now() == there != before
    finally:
        before.apply(torch.device("cpu"))
        torch.set_default_device(None)


def test_answers_arrive_with_arrays_and_tensors():
    ours, theirs = Pipe()
    vector = torch.arange(3.0)
    reading = Reading(np.array([1.0, np.nan]), keys=("a", "b"), details={"vectors": vector})
    say(theirs, Answer(5, 1.0, {"x": reading}, [("x", "words")]))
    found = heard(ours)
    np.testing.assert_array_equal(found.readings["x"].value, reading.value)
    assert torch.equal(found.readings["x"].details["vectors"], vector)
    assert found.errors == [("x", "words")]
    theirs.close()
    with pytest.raises(EOFError):
        heard(ours)
