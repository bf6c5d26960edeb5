import pytest
import torch
from torch.autograd.function import once_differentiable

from trainvitals.diagnostics.linalg.differentiable_twice import looks_asymmetric, refuse_once_differentiable


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        return 2 * g * ctx.saved_tensors[0]


def test_torch_itself_takes_a_once_differentiable_backward_for_constant():
    """The behaviour that the search is for: no error, and a wrong number. d²/dw² Σ (2w)⁴ is not this."""
    w = torch.ones(2, requires_grad=True)
    (g,) = torch.autograd.grad(Square.apply(2 * w).pow(2).sum(), w, create_graph=True)
    (h,) = torch.autograd.grad(g.sum(), w, allow_unused=True)
    assert h is None or not torch.allclose(h, 192 * w**2)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        refuse_once_differentiable([w * 2, g])


def test_it_is_found_behind_other_operations_only_once_differentiated():
    w = torch.ones(2, requires_grad=True)
    y = Square.apply(2 * w).exp().sum()
    refuse_once_differentiable([y])
    (g,) = torch.autograd.grad(y, w, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        refuse_once_differentiable([(g * 3).sum()])
    refuse_once_differentiable([torch.autograd.grad((w**4).sum(), w, create_graph=True)[0], torch.ones(2)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [3, 300])
def test_symmetric_matrices_pass_and_others_do_not(dtype, size):
    suspected = 0
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        B = torch.randn(size, size, generator=generator, dtype=torch.float64).to(dtype)
        u, v = torch.randn(2, size, generator=generator, dtype=torch.float64).to(dtype)
        A = B + B.T
        assert not looks_asymmetric((u, A @ u), (v, A @ v))
        suspected += looks_asymmetric((u, B @ u), (v, B @ v))
    assert suspected >= 19
