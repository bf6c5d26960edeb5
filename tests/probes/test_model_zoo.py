"""Measuring the models of `model_zoo.py` leaves each of them, and torch, as they were."""

import copy

import pytest
import torch
import torch.nn.functional as F
from model_zoo import MODELS, Pooled, slow_but_some
from torch import nn

import trainvitals as tv
from trainvitals.probes.bystander import bystander

WHAT = ["hessian.top", "grad.norm", "grad.cosine", "oui", "gap"]


def switches():
    return {
        "cudnn": torch.backends.cudnn.enabled,
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "flash": torch.backends.cuda.flash_sdp_enabled(),
        "weight norm": torch._weight_norm,
        "random": torch.get_rng_state().tolist(),
    }


def state(model):
    """Everything bit for bit, in order."""
    return {
        "tensors": {k: v.clone() for k, v in model.state_dict().items()},
        "versions": [p._version for p in model.parameters()],
        "modes": [m.training for m in model.modules()],
        "attributes": [sorted(vars(m)) for m in model.modules()],
        "gradients": [p.grad for p in model.parameters()],
        "switches": switches(),
    }


def assert_same(now, before):
    tensors, others = now.pop("tensors"), before.pop("tensors")
    assert list(tensors) == list(others)
    for name, tensor in tensors.items():
        assert tensor.dtype == others[name].dtype
        assert torch.equal(tensor, others[name]), name
    assert now == before


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("entry", slow_but_some(MODELS))
def test_a_measurement_leaves_no_trace(entry, mode):
    model = entry.model().train(mode == "eval")  # the other way about
    before = state(model)
    found = tv.measure(model, batch=entry.batch(), heldout=entry.batch(), **entry.arguments, mode=mode, what=WHAT)
    assert_same(state(model), before)
    assert found["grad.norm"].missing is None
    assert found["gap.loss"].value == 0  # the same samples


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("enabled", [True, False])
def test_recurrent_layers_run_without_cudnn_whose_kernels_have_no_double_backward(kind, enabled, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "enabled", enabled)

    class Seen:  # what a model leads to is put back, lists in functions included; a class is not looked into
        flags = []

    def call(layer, x):
        Seen.flags.append(torch.backends.cudnn.enabled)
        return layer(x)

    model = Pooled(kind(4, 3, batch_first=True), 3, call)
    x, y = torch.randn(6, 5, 4), torch.arange(6) % 3
    assert tv.measure(model, batch=(x, y), loss=F.cross_entropy, what=["hessian.top"])["hessian.top"].converged
    assert set(Seen.flags) == {False}
    assert torch.backends.cudnn.enabled is enabled


def test_convolutions_keep_cudnn(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "enabled", True)
    with bystander(nn.Conv2d(1, 1, 3)):
        assert torch.backends.cudnn.enabled  # much faster, and twice differentiable


@pytest.mark.parametrize("dim", [0, 1, 2, -1, None])
def test_weight_norm_in_a_probe_is_torchs_own_and_twice_differentiable(dim):
    torch.manual_seed(0)
    layer = torch.nn.utils.parametrizations.weight_norm(nn.Conv1d(3, 4, 2), dim=dim).double()
    plain = copy.deepcopy(layer).weight
    g, v = (p.detach().requires_grad_() for p in layer.parametrizations.weight.parameters())
    with bystander(layer):
        torch.testing.assert_close(layer.weight, plain)
        function = layer.parametrizations.weight[0]
        torch.autograd.gradgradcheck(lambda g, v: function(g, v), (g, v))
