"""Matrices with known spectra, and the Hessian operator of a small model."""

import pytest
import torch
from torch.func import functional_call

from trainvitals.diagnostics.linalg.hvp import HessianOperator


def hessian_of(model, loss, batches):
    model.eval()
    parameters = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    num_samples = sum(len(x) for x, _ in batches)

    def chunk(x, y):
        return lambda values: loss(functional_call(model, dict(zip(parameters, values, strict=True)), (x,)), y)

    return HessianOperator([(len(x) / num_samples, chunk(x, y)) for x, y in batches], parameters)


@pytest.fixture(autouse=True)
def math_attention():
    torch.backends.mha.set_fastpath_enabled(False)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        yield
    torch.backends.mha.set_fastpath_enabled(True)


def with_spectrum(values, seed):
    """A dense symmetric matrix with these eigenvalues in random directions."""
    generator = torch.Generator().manual_seed(100 + seed)
    Q, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=values.dtype))
    A = Q * values @ Q.T
    return (A + A.T) / 2


class Diagonal:
    """diag(values) as an operator: large matrices with a known spectrum."""

    def __init__(self, values):
        self.values, self.dtype, self.device = values, values.dtype, values.device
        self.shape = torch.Size([len(values)] * 2)

    def __matmul__(self, v):
        return self.values * v


class CountedMatrix:
    """Counts the products with what it wraps."""

    def __init__(self, operator):
        self._operator, self.num_products = operator, 0
        self.shape, self.dtype, self.device = operator.shape, operator.dtype, operator.device

    def __matmul__(self, v):
        self.num_products += 1
        return self._operator @ v
