"""Measuring awkward models: what can be measured is, what cannot says why, and nothing stays behind."""

import gc

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import trainvitals as tv
from trainvitals.diagnostics.registry import select
from trainvitals.probes.measure import take_readings
from trainvitals.probes.subject import make_subject

X, Y = torch.randn(12, 4, generator=torch.Generator().manual_seed(1)), torch.arange(12) % 3
CURVATURE, GRADIENTS = ["hessian.top"], ["grad.norm", "grad.cosine"]


def measured(model: nn.Module, what: list[str], **changes) -> dict[str, tv.Reading]:
    arguments = {"batch": (X, Y), "loss": F.cross_entropy} | changes
    return tv.measure(model, what=[*what, "loss.train"], **arguments)


class Net(nn.Module):
    """An MLP whose hidden layer may be run by another function."""

    def __init__(self, run=lambda layer, x: layer(x)) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())
        self.last = nn.Linear(8, 3)
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.run(self.hidden, x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])  # whose probe weights are not the model's own
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointed_layers_have_the_curvature_of_plain_ones(use_reentrant, dtype):
    plain = measured(Net().to(dtype), CURVATURE + GRADIENTS)
    model = Net(lambda f, x: checkpoint(f, x, use_reentrant=use_reentrant)).to(dtype)
    saved = measured(model, CURVATURE + GRADIENTS)
    for name, reading in plain.items():
        torch.testing.assert_close(torch.tensor(saved[name].value), torch.tensor(reading.value))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch.compile's own imports
def test_compiled_layers_and_losses_have_the_curvature_of_plain_ones():
    plain, model = measured(Net(), CURVATURE), Net()
    model.hidden = torch.compile(model.hidden, backend="aot_eager")  # pyright: ignore
    found = measured(model, CURVATURE, loss=torch.compile(F.cross_entropy, backend="aot_eager"))
    torch.testing.assert_close(torch.tensor(found["hessian.top"].value), torch.tensor(plain["hessian.top"].value))


def test_a_sparse_embedding_has_the_curvature_of_a_dense_one_and_keeps_its_rows():
    def readings(sparse: bool) -> dict[str, tv.Reading]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(6, 4, sparse=sparse, max_norm=0.5), nn.Flatten(), nn.Linear(8, 3))
        before = model[0].weight.clone()
        found = measured(model, CURVATURE + GRADIENTS, batch=(torch.arange(24).reshape(12, 2) % 6, Y))
        assert torch.equal(model[0].weight, before)  # max_norm rewrites rows in the forward pass
        return found

    dense, sparse = readings(False), readings(True)
    for name, reading in dense.items():
        torch.testing.assert_close(torch.tensor(sparse[name].value), torch.tensor(reading.value))


def test_a_half_precision_model_with_a_frozen_layer_is_measured_in_float32():
    model = Net().bfloat16()
    model.hidden.requires_grad_(False)
    found = measured(model, CURVATURE + GRADIENTS, batch=(X.bfloat16(), Y))
    assert all(reading.missing is None for reading in found.values())
    assert model.hidden[0].weight.dtype == torch.bfloat16


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        return (x.to(torch.complex64) @ self.weight).abs()


def _mixed() -> nn.Module:
    model = Net(lambda layer, x: layer(x).double())
    model.last.double()
    return model


def test_without_a_hessian_the_rest_is_measured_and_curvature_says_why():
    found = measured(Complex(), CURVATURE)
    assert "parameters are complex" in found["hessian.top"].missing
    assert found["loss.train"].missing is None


def test_parameters_in_float32_and_float64_have_one_hessian():
    mixed, reference = _mixed(), _mixed()
    reference.double()
    reference.load_state_dict(mixed.state_dict())
    found, expected = measured(mixed, CURVATURE), measured(reference, CURVATURE, batch=(X.double(), Y))
    for name in CURVATURE:
        assert found[name].missing is None
    assert found["hessian.top"].value == pytest.approx(expected["hessian.top"].value, rel=1e-4, abs=1e-6)


def test_an_operation_without_a_second_derivative_is_named_and_the_fallback_taken():
    model = nn.Sequential(nn.EmbeddingBag(6, 4), nn.Linear(4, 3))
    arguments = {"batch": (torch.arange(24).reshape(12, 2) % 6, Y)}
    with pytest.warns(RuntimeWarning, match=r"module '0' \(EmbeddingBag\) has no second derivative"):
        found = measured(model, CURVATURE, **arguments)["hessian.top"]
    assert found.details["products"] == "finite differences"
    assert "module '0' (EmbeddingBag)" in found.details["products_reason"]
    forced = measured(model, CURVATURE, products="double backward", **arguments)["hessian.top"]
    assert "module '0' (EmbeddingBag) has no second derivative" in forced.missing


def test_a_model_that_cannot_take_one_sample_has_no_per_sample_gradients():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).train()
    found = measured(model, ["grad.cosine"], mode="train")
    assert "does not take one sample alone" in found["grad.cosine"].missing
    assert found["loss.train"].missing is None


def test_a_loss_without_a_graph_has_gradients_of_zero():
    found = measured(Net(), ["grad.norm"], loss=lambda outputs, targets: torch.tensor(1.0))
    assert found["grad.norm"].value.tolist() == [0.0] * 6


def test_measuring_works_inside_inference_mode():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    with torch.inference_mode():
        found = measured(model, CURVATURE, mode="train")
    assert found["hessian.top"].missing is None


def test_a_default_device_of_the_users_does_not_reach_the_diagnostics():
    def run(layer: nn.Module, x: Tensor) -> Tensor:
        assert torch.get_default_device().type == "meta"  # the model sees it
        return layer(x)

    plain, model = measured(Net(), CURVATURE + GRADIENTS), Net(run)
    with torch.device("meta"):
        found = measured(model, CURVATURE + GRADIENTS)
    for name, reading in plain.items():
        torch.testing.assert_close(torch.tensor(found[name].value), torch.tensor(reading.value))


def test_no_tensor_of_a_measurement_waits_for_the_garbage_collector():
    def num_tensors() -> int:
        return sum(type(thing) is Tensor for thing in gc.get_objects())

    subject = make_subject(Net(), loss=F.cross_entropy, forward=None, train=(X, Y), heldout=(X, Y), call="test")
    take_readings(subject, select(CURVATURE + GRADIENTS))  # fills what is kept between measurements
    gc.collect()
    gc.disable()
    try:
        before = num_tensors()
        take_readings(subject, select(CURVATURE + GRADIENTS))
        after = num_tensors()
    finally:
        gc.enable()
    assert after == before
