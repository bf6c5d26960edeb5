"""The tangent kernel against one backward pass an output, against linear models, and against a training step."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import CASES
from torch import nn

import trainvitals as tv
from trainvitals.diagnostics import tangent_kernel
from trainvitals.diagnostics.tangent_kernel import JacobianSpectrum, TangentKernel, tangents_of
from trainvitals.probes.bystander import bystander
from trainvitals.probes.measure import take_readings
from trainvitals.probes.snapshot import ModelSnapshot
from trainvitals.probes.subject import make_subject

WHAT = ["ntk", "jacobian.spectrum"]


def dense_jacobian(model, x):
    """(NC, P), row by row."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for i in range(len(x)):
        for entry in model(x[i : i + 1]).flatten():
            parts = torch.autograd.grad(entry, parameters, retain_graph=True, materialize_grads=True)
            rows.append(torch.cat([p.flatten() for p in parts]))
    return torch.stack(rows).detach()


def measured(model, loss, batch, num_samples=99, k=999):
    options = {"ntk": {"num_samples": num_samples}, "jacobian.spectrum": {"num_samples": num_samples, "k": k}}
    return tv.measure(model, loss=loss, batch=batch, what=options)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_spectra_equal_those_of_the_dense_jacobian(case):
    built = case.build()
    found = measured(built.model, built.loss, built.batches)
    model, (x, y) = built.model.eval(), built.batch
    J = dense_jacobian(model, x)
    U, sigma, _ = np.linalg.svd(J.numpy(), full_matrices=False)
    rows, P = J.shape
    values = np.zeros(rows)
    values[: len(sigma)] = sigma**2
    assert found["ntk.lambda_max"].value == pytest.approx(values[0])
    floor = rows * np.finfo(float).eps * values[0]
    assert found["ntk.lambda_min"].value == pytest.approx(values[-1] if values[-1] > floor else 0.0, abs=10 * floor)
    if rows > P or values[-1] < 0.1 * floor:
        assert "zero to rounding" in found["ntk.condition"].missing
    seen = values > 1e6 * floor
    assert found["jacobian.spectrum.sigma"].value[seen] == pytest.approx(np.sqrt(values[seen]))
    z = model(x).detach().requires_grad_()
    losses = sum(built.loss(z[i : i + 1], y[i : i + 1]) for i in range(len(x)))
    (r,) = torch.autograd.grad(losses, z)
    shares = found["jacobian.spectrum.residual"].value
    assert shares.sum() == pytest.approx(1.0)
    gaps = -np.diff(values[seen]) / values[0]
    own = [j for j in range(1, len(gaps)) if min(gaps[j - 1], gaps[j]) > 1e-6]  # modes that stand alone
    expected = (U.T @ r.flatten().numpy()) ** 2 / float(r.square().sum())
    assert shares[own] == pytest.approx(expected[own], abs=1e-6)
    assert found["jacobian.spectrum.residual"].details["captured"] == pytest.approx(1.0)


def test_a_linear_model_has_the_kernel_of_its_inputs_and_never_changes_it():
    torch.manual_seed(0)
    model, x = nn.Linear(9, 2).double(), torch.randn(6, 9, dtype=torch.float64)
    subject = make_subject(model, loss=F.mse_loss, forward=None, train=(x, torch.randn(6, 2).double()), call="test")
    diagnostic = TangentKernel()
    first = take_readings(subject, [diagnostic], step=0)
    with torch.no_grad():
        model.weight.mul_(-3.0)
    second = take_readings(subject, [diagnostic], step=5)
    values = torch.linalg.eigvalsh(x @ x.T + 1)
    for found in (first, second):
        assert found["ntk.lambda_max"].value == pytest.approx(float(values[-1]))
        assert found["ntk.lambda_min"].value == pytest.approx(float(values[0]))
        assert found["ntk.condition"].value == pytest.approx(float(values[-1] / values[0]))
    assert "first measurement" in first["ntk.change"].missing
    assert second["ntk.change"].value == pytest.approx(0.0, abs=1e-12)
    assert second["ntk.change"].details == {"step": 0}


def test_the_change_is_that_of_the_dense_kernels():
    built = CASES[0].build()
    subject = make_subject(built.model, loss=built.loss, forward=None, train=built.batches, call="test")
    diagnostic, kernels = TangentKernel(num_samples=24), []
    for step in range(2):
        found = take_readings(subject, [diagnostic], step=step)
        J = dense_jacobian(built.model.eval(), built.batch[0])
        kernels.append(J @ J.T)
        with torch.no_grad():
            for p in built.model.parameters():
                p.add_(0.1)
    expected = float((kernels[1] - kernels[0]).norm() / kernels[0].norm())
    assert found["ntk.change"].value == pytest.approx(expected)


@pytest.mark.parametrize("index", [0, 6], ids=["cross-entropy", "squared error"])
def test_a_small_step_moves_the_outputs_by_the_kernel_times_the_residual(index):
    built = CASES[index].build()
    model, (x, y), lr = built.model.eval(), built.batch, 1e-7
    subject = make_subject(model, loss=built.loss, forward=None, train=(x, y), call="test")
    with bystander(model):
        found = tangents_of(99)(ModelSnapshot(subject, {"ntk": TangentKernel()}))
    before = model(x).detach()
    built.loss(model(x), y).backward()
    with torch.no_grad():
        for p in model.parameters():
            p -= lr * p.grad
    moved = (model(x).detach() - before) / lr
    torch.testing.assert_close(moved.flatten(), -found.kernel @ found.residual / len(x), rtol=1e-4, atol=1e-6)


def test_the_order_of_the_samples_does_not_matter_and_scaling_outputs_scales():
    built = CASES[0].build()
    x, y = built.batch
    one, other = measured(built.model, built.loss, (x, y)), measured(built.model, built.loss, (x.flip(0), y.flip(0)))
    for name in ("ntk.lambda_max", "ntk.lambda_min"):
        assert other[name].value == pytest.approx(one[name].value)
    assert other["jacobian.spectrum.sigma"].value[:20] == pytest.approx(one["jacobian.spectrum.sigma"].value[:20])


def test_the_subset_is_drawn_once_and_shared():
    built = CASES[0].build()
    found = measured(built.model, built.loss, built.batches, num_samples=5, k=4)
    samples = found["ntk.lambda_max"].details["samples"].long().tolist()
    assert len(set(samples)) == 5
    J = dense_jacobian(built.model.eval(), built.batch[0][samples])
    assert found["ntk.lambda_max"].value == pytest.approx(float(torch.linalg.eigvalsh(J @ J.T)[-1]))
    assert found["jacobian.spectrum.sigma"].keys == ("1", "2", "3", "4")
    assert found["ntk.lambda_max"].provenance["forward_passes"] == 5
    assert found["jacobian.spectrum.sigma"].provenance["forward_passes"] == 0
    again = measured(built.model, built.loss, built.batches, num_samples=5, k=4)
    assert again["ntk.lambda_max"].value == found["ntk.lambda_max"].value


class Constant(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return x * 1.0


def test_missing_with_the_reason(monkeypatch):
    x, y = torch.randn(4, 2), torch.arange(4) % 2
    found = measured(Constant(), F.cross_entropy, (x, y))
    assert found["ntk.lambda_max"].value == 0.0
    assert "zero to rounding" in found["ntk.condition"].missing
    few = measured(nn.Linear(2, 2, bias=False), F.cross_entropy, (x, y))
    assert few["ntk.lambda_min"].value == 0.0
    assert "zero to rounding" in few["ntk.condition"].missing

    def forward(model, batch):
        return model(batch), model(batch).square().mean()

    other = tv.measure(nn.Linear(2, 2), forward=forward, batch=x, what=WHAT)
    assert all("through forward=" in reading.missing for reading in other.values())
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).train()
    alone = tv.measure(net, loss=F.cross_entropy, batch=(x, y), what=WHAT, mode="train")
    assert all("does not take one sample alone" in reading.missing for reading in alone.values())
    flat = measured(nn.Linear(2, 2), lambda z, y: 0 * z.detach().mean(), (x, y))
    assert "zero or not finite" in flat["jacobian.spectrum.residual"].missing
    monkeypatch.setattr(tangent_kernel, "MAX_ROWS", 5)
    large = measured(nn.Linear(2, 2), F.cross_entropy, (x, y))
    assert "num_samples=2 fits" in large["ntk.change"].missing
    monkeypatch.undo()
    broken = nn.Linear(2, 2)
    nn.init.constant_(broken.weight, torch.nan)
    deep = nn.Sequential(nn.Linear(2, 2), broken)
    assert "NaN or Inf" in measured(deep, F.cross_entropy, (x, y))["ntk.lambda_max"].missing


def test_a_kernel_of_zero_or_of_another_size_has_no_change():
    x, y = torch.randn(4, 2), torch.arange(4) % 2
    diagnostic = TangentKernel()
    for model, reason in ((Constant(), "first measurement"), (Constant(), "was zero at the first measurement"),
                          (nn.Linear(2, 3), "another number of outputs")):  # fmt: skip
        subject = make_subject(model, loss=F.cross_entropy, forward=None, train=(x, y), call="test")
        assert reason in take_readings(subject, [diagnostic])["ntk.change"].missing


@pytest.mark.parametrize(
    ("cls", "options"),
    [(TangentKernel, {"num_samples": 0}), (JacobianSpectrum, {"num_samples": 2.5}), (JacobianSpectrum, {"k": 0})],
)
def test_counts_that_are_none_are_refused(cls, options):
    with pytest.raises(ValueError, match="expected a whole number of at least 1"):
        cls(**options)
