import numpy as np
import pytest
import torch
from cases import CASES, dense_hessian
from perturbed import gradient_at, norm, weights_of
from quadratics import linear_regression
from torch import nn

import trainvitals as tv

NAME = "flatness.first_order"


def measured(built, **options):
    return tv.measure(built.model, loss=built.loss, batch=built.batches, what={NAME: options})[NAME]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_one_step_equals_the_dense_computation(case):
    built = case.build()
    weights = weights_of(built)
    g = torch.cat([part.reshape(-1) for part in gradient_at(built, weights)])
    ascent = dense_hessian(case.build().model, built.loss, built.batch) @ g
    pieces = (0.05 * ascent / ascent.norm()).split([w.numel() for w in weights])
    there = [w + piece.view_as(w) for w, piece in zip(weights, pieces, strict=True)]
    expected = 0.05 * max(float(g.norm()), norm(gradient_at(built, there)))
    assert measured(built).value == pytest.approx(expected, rel=1e-8)


def largest_gradient(H, g, rho):
    """max ‖g + Hδ‖ over the ball, by many starts on the sphere in the eigenbasis."""
    values, vectors = np.linalg.eigh(H)
    a = vectors.T @ g
    rng = np.random.default_rng(0)
    points = rng.normal(size=(2000, len(g)))
    points *= rho / np.linalg.norm(points, axis=1, keepdims=True)
    for _ in range(300):  # power-like ascent: δ goes along the gradient of ‖a + Λδ‖²
        ascent = (a + points * values) * values
        points = rho * ascent / np.linalg.norm(ascent, axis=1, keepdims=True)
    return float(np.linalg.norm(a + points * values, axis=1).max())


def test_of_a_quadratic_more_steps_come_up_to_the_largest_gradient_in_the_ball():
    built, _, H, g = linear_regression()
    rho = 0.7
    exact = rho * largest_gradient(H.numpy(), g.numpy(), rho)
    found = [measured(built, rho=rho, num_steps=n).value for n in (1, 2, 8, 32)]
    assert all(f <= exact * (1 + 1e-9) for f in found)
    assert found[0] > 0.9 * exact
    assert all(f > rho * float(g.norm()) for f in found)
    one = g + H @ (rho * (H @ g) / (H @ g).norm())
    assert found[0] == pytest.approx(rho * float(one.norm()), rel=1e-9)


def test_it_counts_its_products():
    assert [measured(CASES[0].build(), num_steps=n).hvps for n in (1, 3)] == [1, 3]


def test_a_zero_gradient_says_so():
    model = nn.Linear(3, 1, bias=False)
    nn.init.zeros_(model.weight)
    found = tv.measure(model, loss=nn.functional.mse_loss, batch=(torch.eye(3), torch.zeros(3, 1)), what=[NAME])[NAME]
    assert "gradient of the train probe is zero" in found.missing


def test_a_linear_loss_has_one_gradient_everywhere():
    model = nn.Linear(3, 1, bias=False).double()
    found = tv.measure(model, loss=lambda z, y: (z * y).mean(), batch=(torch.eye(3).double(), torch.ones(3, 1)),
                       what=[NAME])[NAME]  # fmt: skip
    assert found.value == pytest.approx(0.05 / 3**0.5)  # ‖1/3‖ over three weights


@pytest.mark.parametrize("options", [{"rho": 0}, {"num_steps": 0}])
def test_bad_options_are_told(options):
    with pytest.raises(ValueError, match="expected rho > 0"):
        measured(CASES[0].build(), **options)
