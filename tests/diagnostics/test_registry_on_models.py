"""Every diagnostic on ten kinds of model: a finite number or the reason, the same twice, and the model as it was."""

import copy
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trainvitals as tv
from trainvitals.diagnostics.registry import described, registered

N = 12
LABELS = torch.arange(N) % 3
pytestmark = pytest.mark.slow


class Classifier(nn.Module):
    """One stock encoder layer over four tokens."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.encoder(x).mean(1))


class Language(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(6, 4), nn.Linear(4, 4), nn.Linear(4, 6)

    def forward(self, ids):
        return self.head(F.gelu(self.mix(self.embed(ids))))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.gru(x)[0][:, -1])


class TiedFrozenUnused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.second.weight = self.first.weight
        self.first.bias.requires_grad_(False)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return self.head(torch.tanh(self.second(torch.relu(self.first(x)))))


def mlp(outputs, width=5):
    return nn.Sequential(nn.Linear(width, 6), nn.ReLU(), nn.Linear(6, outputs))


def convolutional():
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3))


def token_loss(model, batch):
    logits = model(batch["input_ids"])
    return logits, F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())


def contrastive(model, batch):
    one, other = (F.normalize(model(x), dim=1) for x in batch)
    return one, F.cross_entropy(one @ other.T / 0.5, torch.arange(len(one)))


def tokens():
    ids = torch.randint(6, (N, 5))
    return {"input_ids": ids, "labels": torch.where(ids == 0, -100, ids)}  # 0 is padding


def vectors(*shape):
    return lambda: (torch.randn(N, *shape), LABELS)


def reconstruction():
    x = torch.randn(N, 5)
    return x, x.clone()


KINDS = {  # name -> model, how it is called, a function that draws a batch
    "MLP": (lambda: mlp(3), {"loss": F.cross_entropy}, vectors(5)),
    "CNN with BatchNorm": (convolutional, {"loss": F.cross_entropy}, vectors(1, 4, 4)),
    "transformer": (Classifier, {"loss": F.cross_entropy}, vectors(4, 4)),
    "language model with padding": (Language, {"forward": token_loss}, tokens),
    "recurrent": (Recurrent, {"loss": F.cross_entropy}, vectors(4, 3)),
    "regression": (lambda: mlp(2), {"loss": F.mse_loss}, lambda: (torch.randn(N, 5), torch.randn(N, 2))),
    "multi-label": (lambda: mlp(3), {"loss": F.binary_cross_entropy_with_logits},
                    lambda: (torch.randn(N, 5), (torch.randn(N, 3) > 0).float())),
    "autoencoder": (lambda: mlp(5), {"loss": F.mse_loss}, reconstruction),
    "contrastive": (lambda: mlp(3), {"forward": contrastive}, lambda: (torch.randn(N, 5), torch.randn(N, 5))),
    "tied, frozen, unused": (TiedFrozenUnused, {"loss": F.cross_entropy}, vectors(5)),
}  # fmt: skip


def everything_of(model, optimizer):
    """What a probe must leave as it was, in a form that `==` and `equal` can compare."""
    tensors = {**model.state_dict(keep_vars=True), **{f"{n}.grad": p.grad for n, p in model.named_parameters()}}
    return {
        "tensors": {name: None if t is None else t.detach().clone() for name, t in tensors.items()},
        "versions": {name: None if t is None else t._version for name, t in tensors.items()},
        "modes": [module.training for module in model.modules()],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        "optimizer": copy.deepcopy(optimizer.state_dict()),
        "random": (random.getstate(), torch.get_rng_state().tolist(), repr(np.random.get_state())),
    }


def assert_same(one, other):
    for name, tensor in one["tensors"].items():
        assert (tensor is None) == (other["tensors"][name] is None), name
        assert tensor is None or torch.equal(tensor, other["tensors"][name]), name
    assert repr(one["optimizer"]) == repr(other["optimizer"])
    for part in ("versions", "modes", "hooks", "random"):
        assert one[part] == other[part], part


@pytest.fixture(params=KINDS, scope="module")
def measured(request):
    """Everything measured twice on one kind of model, with what was there before and after."""
    make, how, draw = KINDS[request.param]
    torch.manual_seed(0)
    model, batch, heldout = make(), draw(), draw()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    loss = token_loss(model, batch)[1] if how.get("forward") is token_loss else None
    if loss is None:
        loss = how["forward"](model, batch)[1] if "forward" in how else how["loss"](model(batch[0]), batch[1])
    loss.backward()
    optimizer.step()
    before = everything_of(model, optimizer)
    readings = [
        tv.measure(model, batch=batch, heldout=heldout, optimizer=optimizer, what=list(registered()), **how)
        for _ in range(2)
    ]
    return readings, before, everything_of(model, optimizer)


def test_each_metric_is_a_finite_number_or_says_why_not(measured):
    (readings, _), _, _ = measured
    assert readings.keys() == described().keys()
    for name, reading in readings.items():
        if reading.missing is None:
            assert np.isfinite(np.asarray(reading.value)).all(), name
            assert reading.error is None or not np.isinf(np.asarray(reading.error)).any(), name
            assert reading.keys == () or len(reading.keys) == len(reading.value), name
        else:
            assert "the measurement failed" not in reading.missing, (name, reading.missing)
            assert len(reading.missing) > 10, name


def test_the_same_weights_give_the_same_numbers(measured):
    (one, other), _, _ = measured
    different = [name for name in one if repr(one[name].value) != repr(other[name].value)
                 or one[name].missing != other[name].missing]  # fmt: skip
    assert different == []


def test_nothing_of_the_model_the_optimiser_or_the_random_state_has_changed(measured):
    _, before, after = measured
    assert_same(before, after)


def test_every_reading_says_what_it_is_and_where_it_comes_from(measured):
    (readings, _), _, _ = measured
    for name, reading in readings.items():
        assert reading.definition == f"{name} v{described()[name].version}"
        assert {"batch", "mode", "dtype", "forward_passes", "backward_passes"} <= reading.provenance.keys(), name
