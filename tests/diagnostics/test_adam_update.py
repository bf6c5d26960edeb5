"""Adam's update against the steps that torch's own optimisers take, and moments run by hand."""

import math

import pytest
import torch
from fake_snapshot import FakeSnapshot
from torch import nn

import trainvitals as tv
from trainvitals.diagnostics.adam_update import AdamEpsShare, AdamUpdateRms
from trainvitals.diagnostics.base import Missing, OptimizerView, ParameterGroup

KINDS = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.8, 0.95), eps=1e-3),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "adam with L2": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
}


def trained(make, num_steps=7):
    """A model after some steps, and the last update of each parameter."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    optimizer, batch = make(model.parameters()), (torch.randn(30, 4).double(), torch.randn(30, 2).double())
    before = {}
    for step in range(num_steps):
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer.zero_grad()
        pick = torch.arange(step % 3, 30, 3)
        nn.functional.mse_loss(model(batch[0][pick]), batch[1][pick]).backward()
        optimizer.step()
    return model, optimizer, batch, before


def measured(model, optimizer, batch):
    return tv.measure(model, loss=nn.functional.mse_loss, batch=batch, optimizer=optimizer, what=["adam"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_update_is_the_step_that_torch_took(kind):
    model, optimizer, batch, before = trained(KINDS[kind])
    reading = measured(model, optimizer, batch)["adam.update_rms"]
    decay = 0.1 if kind == "adamw" else 0.0
    expected = {
        name: float(((p.detach() - (1 - 0.01 * decay) * before[name]) / 0.01).square().mean().sqrt())
        for name, p in model.named_parameters()
    }
    assert dict(zip(reading.keys, reading.value, strict=True)) == pytest.approx(expected, rel=1e-9)


def test_the_eps_share_counts_entries_of_moments_run_by_hand():
    gradients = torch.tensor([[1e-9, 3e-8, 0.0, 2.0], [1e-9, 1e-9, 0.0, 0.0], [3e-8, 1e-9, 0.0, 0.0]]).double()
    p = nn.Parameter(torch.zeros(4, dtype=torch.float64))
    optimizer = torch.optim.Adam([p], eps=1e-8, betas=(0.9, 0.9))
    v = [0.0] * 4
    for g in gradients:
        p.grad = g.clone()
        optimizer.step()
        v = [0.9 * old + 0.1 * float(x) ** 2 for old, x in zip(v, g, strict=True)]
    roots = [math.sqrt(x / (1 - 0.9**3)) for x in v]
    view = view_of(optimizer.state[p], optimizer.param_groups[0])
    found = AdamEpsShare().measure(FakeSnapshot(optimizer=view))
    assert found.value.tolist() == [sum(r < 1e-8 for r in roots) / 4]
    assert 0.2 < float(found.value[0]) < 0.8


def view_of(state, options, kind="Adam"):
    return OptimizerView(kind, (ParameterGroup(options, ("w",)),), {"w": state})


def test_scaling_the_loss_changes_nothing_but_through_eps():
    values = []
    for scale in (1.0, 1e3):
        torch.manual_seed(0)
        p = nn.Parameter(torch.zeros(6, dtype=torch.float64))
        optimizer = torch.optim.Adam([p], eps=0.0)
        for _ in range(5):
            p.grad = scale * torch.randn(6, dtype=torch.float64)
            optimizer.step()
        view = view_of(optimizer.state[p], optimizer.param_groups[0])
        values.append(float(AdamUpdateRms().measure(FakeSnapshot(optimizer=view)).value[0]))
    assert values[0] == pytest.approx(values[1])


def test_gradients_that_all_agree_give_one_and_tiny_ones_nothing():
    for size, expected in ((1.0, 1.0), (1e-14, 1e-6)):
        p = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        optimizer = torch.optim.AdamW([p])
        for _ in range(9):
            p.grad = torch.full((3,), size, dtype=torch.float64)
            optimizer.step()
        view = view_of(optimizer.state[p], optimizer.param_groups[0], "AdamW")
        reading = AdamUpdateRms().measure(FakeSnapshot(optimizer=view))
        assert float(reading.value[0]) == pytest.approx(expected, rel=1e-5)


def test_moments_that_are_no_numbers_stay_so():
    state = {"step": torch.tensor(3.0), "exp_avg": torch.full((2,), torch.nan), "exp_avg_sq": torch.ones(2)}
    view = view_of(state, {"betas": (0.9, 0.999), "eps": 1e-8})
    assert math.isnan(AdamUpdateRms().measure(FakeSnapshot(optimizer=view)).value[0])


def test_without_eps_and_gradient_the_update_is_zero_as_no_step_can_be_told():
    state = {"step": torch.tensor(3.0), "exp_avg": torch.zeros(2), "exp_avg_sq": torch.zeros(2)}
    view = view_of(state, {"betas": (0.9, 0.999), "eps": 0.0})
    assert AdamUpdateRms().measure(FakeSnapshot(optimizer=view)).value.tolist() == [0.0]


@pytest.mark.parametrize("diagnostic", [AdamUpdateRms(), AdamEpsShare()], ids=lambda d: d.name)
def test_missing_with_the_reason(diagnostic):
    with pytest.raises(Missing, match="the optimiser is SGD, not torch's Adam or AdamW"):
        diagnostic.measure(FakeSnapshot(optimizer=view_of({}, {}, "SGD")))
    with pytest.raises(Missing, match="no moments yet"):
        diagnostic.measure(FakeSnapshot(optimizer=view_of({}, {"betas": (0.9, 0.99), "eps": 1e-8})))
    with pytest.raises(Missing, match="no optimizer"):
        diagnostic.measure(FakeSnapshot())


def test_parameters_without_a_step_are_left_out():
    torch.manual_seed(0)
    used, unused = nn.Linear(2, 1), nn.Linear(2, 1)
    model = nn.ModuleDict({"used": used, "unused": unused})
    model.forward = used.forward
    optimizer, batch = torch.optim.Adam(model.parameters()), (torch.randn(4, 2), torch.randn(4, 1))
    nn.functional.mse_loss(model(batch[0]), batch[1]).backward()
    optimizer.step()
    found = measured(model, optimizer, batch)
    assert found["adam.update_rms"].keys == found["adam.eps_share"].keys == ("used.weight", "used.bias")
