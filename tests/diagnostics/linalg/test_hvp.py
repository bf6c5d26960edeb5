import gc
import weakref

import pytest
import torch
from cases import CASES, dense_hessian
from linalg_helpers import hessian_of, math_attention  # noqa: F401
from torch import nn

from trainvitals.diagnostics.linalg.hvp import HessianOperator


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_products_equal_the_dense_hessian(case, dtype, tolerance):
    built = case.build(dtype)
    H = hessian_of(built.model, built.loss, built.batches)
    V = torch.randn(H.shape[0], 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    columns = H @ V
    single = H @ V[:, 0]
    assert columns.dtype == dtype
    assert H.num_products == 4
    dense = dense_hessian(built.model, built.loss, case.build().batch)
    assert (columns.double() - dense @ V).norm() <= tolerance * (dense @ V).norm()
    assert torch.equal(single, columns[:, 0])


def test_gradient_is_the_gradient_of_the_mean_over_samples():
    built = next(c for c in CASES if c.name == "uneven").build()
    H = hessian_of(built.model, built.loss, built.batches)
    x, y = built.batch
    expected = torch.autograd.grad(built.loss(built.model(x), y), list(built.model.parameters()))
    assert torch.allclose(H.gradient, torch.cat([g.reshape(-1) for g in expected]), rtol=1e-10, atol=1e-12)
    assert not H.gradient.requires_grad


def test_unused_and_linear_parameters_have_zero_curvature():
    theta = {"used": torch.tensor([1.0, 2.0]), "linear": torch.tensor([3.0]), "unused": torch.tensor([5.0, 5.0])}
    H = HessianOperator([(1.0, lambda p: (p[0] ** 3).sum() + 4 * p[1].sum())], theta)
    assert (H @ torch.ones(5)).tolist() == [6.0, 12.0, 0.0, 0.0, 0.0]
    assert H.gradient.tolist() == [3.0, 12.0, 4.0, 0.0, 0.0]


def test_a_loss_without_parameters_or_curvature_gives_zeros():
    theta = {"w": torch.ones(3)}
    assert (HessianOperator([(1.0, lambda p: torch.tensor(2.0))], theta) @ torch.ones(3)).tolist() == [0.0] * 3
    assert (HessianOperator([(1.0, lambda p: p[0].sum())], theta) @ torch.ones(3)).tolist() == [0.0] * 3


def test_graph_is_built_once_and_released():
    calls = 0

    def loss(parameters):
        nonlocal calls
        calls += 1
        return (parameters[0] ** 4).sum()

    H = HessianOperator([(1.0, loss)], {"w": torch.ones(2)})
    for _ in range(3):
        H @ torch.ones(2)
    assert H.gradient.tolist() == [4.0, 4.0]
    assert calls == 1
    graph = weakref.ref(H._held[0].tensors[0])
    H.release()
    gc.collect()
    assert graph() is None
    assert (H @ torch.ones(2)).tolist() == [12.0, 12.0]
    assert calls == 2


def test_nothing_of_the_user_is_touched():
    model = nn.Linear(3, 2)
    x, y = torch.randn(4, 3), torch.randn(4, 2)
    before = [p.clone() for p in model.parameters()]
    with torch.no_grad():  # the caller's grad mode must not matter
        H = hessian_of(model, nn.functional.mse_loss, [(x, y)])
        assert (H @ torch.ones(8)).norm() > 0
    assert all(p.grad is None and torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


def test_split_gives_named_tensors_in_shape():
    H = HessianOperator([(1.0, lambda p: p[0].sum())], {"a": torch.zeros(2, 2), "b": torch.zeros(3)})
    parts = H.split(torch.arange(7.0))
    assert parts["a"].tolist() == [[0.0, 1.0], [2.0, 3.0]]
    assert parts["b"].tolist() == [4.0, 5.0, 6.0]


def test_bad_input_is_told():
    with pytest.raises(ValueError, match="at least one batch"):
        HessianOperator([], {"w": torch.ones(2)})
    with pytest.raises(ValueError, match="add up to 1"):
        HessianOperator([(0.5, lambda p: p[0].sum())], {"w": torch.ones(2)})
    H = HessianOperator([(1.0, lambda p: p[0])], {"w": torch.ones(2)})
    with pytest.raises(ValueError, match="expected a vector"):
        H @ torch.ones(3)
    with pytest.raises(ValueError, match="scalar mean loss"):
        H @ torch.ones(2)
