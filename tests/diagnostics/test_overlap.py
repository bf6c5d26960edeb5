import numpy as np
import pytest
import torch
from cases import CASES, dense_hessian
from dense_operators import math_attention, trainable
from quadratics import linear_regression
from torch import nn

import trainvitals as tv


def measured(built, what=("overlap",), **changes):
    arguments = {"loss": built.loss, "batch": built.batches} | changes
    found = tv.measure(built.model, what=what, **arguments)
    return found["overlap.gradient"], found["overlap.weights"]


def exact_share(v, H, k):
    Q = torch.linalg.eigh(H).eigenvectors[:, -k:]
    return float((Q.T @ v).square().sum() / (v @ v))


def flat(tensors):
    return torch.cat([t.detach().reshape(-1) for t in tensors])


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_equals_the_dense_eigenvectors(case):
    built = case.build()
    x, y = built.batch
    H = dense_hessian(built.model, built.loss, built.batch)
    with math_attention():
        g = flat(torch.autograd.grad(built.loss(built.model(x), y), trainable(built.model), materialize_grads=True))
    k = int(y.max()) + 1 if case.is_classifier else 10
    for found, vector in zip(measured(case.build(), {"overlap": {"tol": 1e-6}}), (g, flat(trainable(built.model))),
                             strict=True):  # fmt: skip
        assert found.value == pytest.approx(exact_share(vector, H, k), rel=1e-4)
        assert found.details["k"] == k
        assert found.details["chance"] == pytest.approx(k / len(H))
        assert abs(found.value - exact_share(vector, H, k)) <= found.error + 1e-9
        assert found.converged


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_the_error_holds_at_a_loose_tolerance(case):
    built = case.build()
    H = dense_hessian(built.model, built.loss, built.batch)
    found = measured(case.build(), {"overlap": {"tol": 0.1, "k": 4}})[1]
    assert abs(found.value - exact_share(flat(trainable(built.model)), H, 4)) <= found.error


def test_the_chance_level_is_a_number_of_its_own():
    built = CASES[0].build()
    found = tv.measure(built.model, loss=built.loss, batch=built.batches, what={"overlap": {"k": 4}})
    assert found["overlap.chance"].value == 4 / sum(p.numel() for p in built.model.parameters())


def test_of_a_quadratic():
    built, theta, H, g = linear_regression()
    gradient, weights = measured(built, {"overlap": {"k": 2}})
    assert gradient.value == pytest.approx(exact_share(g, H, 2), rel=1e-8)
    assert weights.value == pytest.approx(exact_share(theta, H, 2), rel=1e-8)


def test_eigenvectors_of_the_top_are_used_when_it_is_due_with_more_of_them():
    built = CASES[0].build()
    options = {"hessian.top": {"k": 6, "eigenvectors": True, "tol": 1e-6}, "overlap": {}}
    shared, alone = measured(built, options), measured(built, {"overlap": {"tol": 1e-6}})
    assert shared[0].value == pytest.approx(alone[0].value, rel=1e-5)
    assert shared[0].hvps == 0 or shared[1].hvps == 0
    assert alone[0].hvps > 0


def test_directions_that_are_not_determined_are_said():
    model = nn.Linear(4, 1, bias=False).double()  # H = I/2: every direction is a top one
    batch = (torch.eye(4).double(), torch.ones(4, 1).double())
    found = tv.measure(model, loss=nn.functional.mse_loss, batch=batch, what={"overlap": {"k": 2}})["overlap.gradient"]
    assert found.error == 1
    assert found.converged is False
    assert 0 <= found.value <= 1


def test_zero_vectors_and_too_few_parameters_say_so():
    model = nn.Linear(3, 1, bias=False)
    nn.init.zeros_(model.weight)
    batch = (torch.diag(torch.tensor([1.0, 2, 3])), torch.zeros(3, 1))
    arguments = {"loss": nn.functional.mse_loss, "batch": batch}
    found = tv.measure(model, what={"overlap": {"k": 1}}, **arguments)
    assert found["overlap.gradient"].missing == "the gradient is zero: it has no direction"
    assert found["overlap.weights"].missing == "the vector of weights is zero: it has no direction"
    found = tv.measure(model, what={"overlap": {"k": 3}}, **arguments)
    assert "3 directions are all of them" in found["overlap.gradient"].missing


def test_the_share_of_random_directions_is_the_chance_level():
    size, k = 200, 20
    generator = torch.Generator().manual_seed(0)
    H = torch.diag(torch.arange(size).double())
    shares = [exact_share(torch.randn(size, generator=generator).double(), H, k) for _ in range(200)]
    assert np.mean(shares) == pytest.approx(k / size, rel=0.1)


@pytest.mark.parametrize("options", [{"k": 0}, {"tol": 0}, {"k": 9, "max_iterations": 9}])
def test_bad_options_are_told(options):
    with pytest.raises(ValueError, match="expected k ≥ 1"):
        measured(CASES[0].build(), {"overlap": options})
