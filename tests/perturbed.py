"""The loss of a case at other weights, by plain torch on a copy."""

import copy

import torch
from dense_operators import math_attention, trainable


def loss_at(built, values):
    """The loss over the whole probe in eval mode with these trainable parameters."""
    model = copy.deepcopy(built.model).eval()
    for p, value in zip(trainable(model), values, strict=True):
        p.data = value.detach().clone()
    x, y = built.batch
    with math_attention(), torch.no_grad():
        return float(built.loss(model(x), y))


def gradient_at(built, values):
    """The gradient there."""
    model = copy.deepcopy(built.model).eval()
    for p, value in zip(trainable(model), values, strict=True):
        p.data = value.detach().clone()
    x, y = built.batch
    with math_attention():
        return torch.autograd.grad(built.loss(model(x), y), trainable(model), materialize_grads=True)


def weights_of(built):
    return [p.detach().clone() for p in trainable(built.model)]


def norm(tensors):
    return float(torch.cat([t.reshape(-1) for t in tensors]).norm())
