"""Curvature of every kind of model and loss in `model_zoo.py`, against the dense Hessian in float64."""

import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from model_zoo import ENTRIES, IN_MODES, MODELS, WITHOUT_DOUBLE_BACKWARD, N, loss_of, mlp, slow_but_some
from torch import nn

import trainvitals as tv
from trainvitals.probes.bystander import bystander
from trainvitals.probes.snapshot import ModelSnapshot
from trainvitals.probes.subject import make_subject

CURVATURE = ["hessian.top", "hessian.bottom", "hessian.trace"]
NAMED = {entry.name: entry for entry in MODELS}

in_every_mode = pytest.mark.parametrize(("entry", "mode"), IN_MODES, ids=[f"{e.name}-{mode}" for e, mode in IN_MODES])


@functools.cache
def dense(entry, mode):
    return entry.dense_hessian(mode)


@in_every_mode
def test_products_are_those_of_the_dense_hessian(entry, mode):
    H = dense(entry, mode)
    subject = make_subject(entry.model(), train=entry.batch(), **entry.arguments, mode=mode, call="test")
    V = torch.randn(len(H), 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with bystander(subject.model, mode=mode, beside=subject.beside):
        snapshot = ModelSnapshot(subject, {})
        found = snapshot.hessian @ V
        snapshot.release()
    torch.testing.assert_close(found, H @ V, rtol=0, atol=1e-12 * float((H @ V).abs().max()))


@pytest.mark.parametrize("entry", slow_but_some(ENTRIES))
def test_eigenvalues_and_trace_are_those_of_the_dense_hessian(entry):
    mode = entry.modes[-1]
    eigenvalues = np.linalg.eigvalsh(dense(entry, mode).numpy())
    found = tv.measure(entry.model(), batch=entry.batch(), **entry.arguments, mode=mode, what=CURVATURE)
    scale = np.abs(eigenvalues).max()
    assert found["hessian.top"].converged
    np.testing.assert_allclose(found["hessian.top"].value, eigenvalues[::-1][:5], rtol=0, atol=1e-4 * scale)
    np.testing.assert_allclose(found["hessian.bottom"].value, eigenvalues[:1], rtol=0, atol=1e-4 * scale)
    trace = found["hessian.trace"]
    assert trace.value == pytest.approx(eigenvalues.sum(), abs=5 * trace.error + 1e-9 * scale)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("name", ["transformer post-norm", "lstm", "batch norm", "weight norm"])
def test_half_precision_weights_have_the_sharpness_of_float32(name, dtype):
    entry = NAMED[name]
    top = {"hessian.top": {"k": 1}}
    full = tv.measure(entry.model(torch.float32), batch=entry.batch(torch.float32), loss=entry.loss, what=top)
    half = tv.measure(entry.model(torch.float32).to(dtype), batch=entry.batch(dtype), loss=entry.loss, what=top)
    assert half["hessian.top"].value[0] == pytest.approx(full["hessian.top"].value[0], rel=0.02)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch.compile's own imports
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", ["transformer pre-norm", "sdpa causal dropout", "batch norm"])
def test_a_compiled_model_has_the_curvature_of_the_plain_one(name, backend):
    torch.compiler.reset()
    entry = NAMED[name]
    model, plain = entry.model(), entry.model()
    compiled = torch.compile(model, backend=backend)
    x, y = entry.batch()
    F.cross_entropy(compiled(x), y).backward()  # compiled by now, as in a run
    for p in compiled.parameters():
        p.grad = None
    found = tv.measure(compiled, batch=(x, y), loss=entry.loss, what=CURVATURE)
    plain.load_state_dict(model.state_dict())  # that pass moved BatchNorm's statistics
    expected = tv.measure(plain, batch=(x, y), loss=entry.loss, what=CURVATURE)
    for name in CURVATURE:
        torch.testing.assert_close(torch.tensor(found[name].value), torch.tensor(expected[name].value))


def finite_difference_hessian(entry):
    """Central differences of the gradient in float64: the reference where torch differentiates once only."""
    model, batch = entry.model().eval(), entry.batch()
    parameters = list(model.parameters())
    start = nn.utils.parameters_to_vector(parameters).detach()

    def gradient(point):
        nn.utils.vector_to_parameters(point, parameters)
        value = loss_of(model, batch, **entry.arguments)
        return torch.cat([g.flatten() for g in torch.autograd.grad(value, parameters)])

    step = 1e-5 * torch.eye(len(start), dtype=torch.float64)
    H = torch.stack([(gradient(start + e) - gradient(start - e)) / 2e-5 for e in step])
    return (H + H.T) / 2


@pytest.mark.parametrize("entry", WITHOUT_DOUBLE_BACKWARD, ids=lambda entry: entry.name)
def test_without_a_second_derivative_finite_differences_give_the_eigenvalues_and_say_so(entry):
    with pytest.warns(RuntimeWarning, match="no second derivative"):
        found = tv.measure(entry.model(), batch=entry.batch(), **entry.arguments, what=["hessian.top"])["hessian.top"]
    assert found.details["products"] == "finite differences"
    exact = np.linalg.eigvalsh(finite_difference_hessian(entry).numpy())[::-1]
    np.testing.assert_allclose(found.value, exact[:5], rtol=0, atol=1e-4 * exact[0])


def poisoned(model):
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = float("nan")
    return model


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        (poisoned(mlp()), {"batch": (torch.ones(N, 4), torch.arange(N) % 3), "loss": F.cross_entropy}),
        (mlp(), {"batch": (torch.full((N, 4), 1e30), torch.arange(N) % 3),
                 "loss": lambda z, y: F.cross_entropy(z, y) + z.exp().exp().exp().mean() * float("inf")}),
        (poisoned(nn.GRU(4, 3)), {"batch": {"x": torch.ones(N, 2, 4)},
                                  "forward": lambda m, b: (m(b["x"])[0], m(b["x"])[0].square().mean())}),
    ],
    ids=["weights", "infinite loss", "recurrent"],
)  # fmt: skip
def test_a_loss_that_is_not_finite_is_missing_curvature_with_the_reason(model, arguments):
    found = tv.measure(model, what=[*CURVATURE, "loss.train"], **arguments)
    assert not np.isfinite(found["loss.train"].value)
    for name in CURVATURE:
        assert "not finite" in found[name].missing
