"""Losses with a known Hessian everywhere: linear regression, L(θ) = mean (x·θ − y)²."""

from types import SimpleNamespace

import torch
from torch import nn


def linear_regression(num_samples=64, size=6, seed=0, dtype=torch.float64):
    """A model of one linear layer, its batch, and H = 2 XᵀX/N with gradient g at its weights."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_samples, size, generator=generator, dtype=torch.float64)
    x = x * torch.linspace(0.3, 2, size, dtype=torch.float64)
    y = torch.randn(num_samples, 1, generator=generator, dtype=torch.float64)
    model = nn.Linear(size, 1, bias=False).double()
    theta = torch.randn(size, generator=generator, dtype=torch.float64)
    model.weight.data = theta[None].clone()
    H = 2 * x.T @ x / num_samples
    g = 2 * x.T @ (x @ theta - y[:, 0]) / num_samples
    built = SimpleNamespace(model=model.to(dtype), loss=nn.functional.mse_loss,
                            batches=(x.to(dtype), y.to(dtype)), batch=(x, y))  # fmt: skip
    return built, theta, H, g
