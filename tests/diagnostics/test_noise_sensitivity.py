import numpy as np
import pytest
import torch
from cases import CASES, dense_hessian
from dense_operators import snapshot_of
from perturbed import loss_at, weights_of
from quadratics import linear_regression
from torch import nn

import trainvitals as tv

NAME = "noise_sensitivity"


def measured(built, seed=0, **options):
    return tv.measure(built.model, loss=built.loss, batch=built.batches, what={NAME: options}, seed=seed)[NAME]


def test_of_a_quadratic_is_within_twice_its_error_in_nine_of_ten_seeds():
    built, theta, H, _ = linear_regression()
    exact = 0.03**2 / 2 * float((theta**2).mean() * H.trace())
    found = [measured(built, seed=seed, scales=(0.03,)) for seed in range(40)]
    assert sum(abs(f.value[0] - exact) <= 2 * f.error[0] for f in found) >= 36
    assert len({f.value[0] for f in found}) == 40
    assert found[0].keys == ("s=0.03",)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_equals_the_definition_with_the_same_draws(case):
    built = case.build()
    weights = weights_of(built)
    with snapshot_of(built) as snapshot:
        generator = snapshot.generator(NAME)
    rises = []
    for _ in range(3):
        noise = [(p**2).mean().sqrt() * torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in weights]
        row = []
        for s in (0.02, 0.2):
            both = [loss_at(built, [p + sign * s * d for p, d in zip(weights, noise, strict=True)]) for sign in (1, -1)]
            row.append(sum(both) / 2 - loss_at(built, weights))
        rises.append(row)
    found = measured(built, scales=(0.02, 0.2), num_draws=3)
    np.testing.assert_allclose(found.value, np.mean(rises, 0), rtol=1e-7)
    np.testing.assert_allclose(found.error, np.std(rises, 0, ddof=1) / np.sqrt(3), rtol=1e-7)
    assert all(torch.equal(a, b) for a, b in zip(weights_of(built), weights, strict=True))


@pytest.mark.parametrize("name", ["layernorm", "tied", "mse"])  # no kinks, which add curvature of their own
def test_small_noise_gives_half_the_trace_of_each_block_by_its_size(name):
    case = next(c for c in CASES if c.name == name)
    built = case.build()
    diagonal = dense_hessian(case.build().model, built.loss, built.batch).diagonal()
    weights = weights_of(built)
    pieces = diagonal.split([p.numel() for p in weights])
    exact = 1e-6 / 2 * sum(float((p**2).mean() * d.sum()) for p, d in zip(weights, pieces, strict=True))
    found = measured(built, scales=(1e-3,), num_draws=40)
    assert abs(found.value[0] - exact) <= 3 * found.error[0]


def test_every_dtype_sees_the_same_noise():
    one, other = (measured(CASES[0].build(dtype)).value for dtype in (torch.float32, torch.float64))
    np.testing.assert_allclose(one[2], other[2], rtol=1e-2)


def test_weights_that_are_all_zero_say_so():
    model = nn.Linear(3, 1, bias=False)
    nn.init.zeros_(model.weight)
    found = tv.measure(model, loss=nn.functional.mse_loss, batch=(torch.eye(3), torch.zeros(3, 1)), what=[NAME])[NAME]
    assert "all weights are zero" in found.missing


def test_an_overflow_says_so():
    assert "not finite" in measured(linear_regression()[0], scales=(1e200,)).missing


@pytest.mark.parametrize("options", [{"scales": ()}, {"scales": (0.1, -1)}, {"num_draws": 1}])
def test_bad_options_are_told(options):
    with pytest.raises(ValueError, match="expected positive scales"):
        measured(CASES[0].build(), **options)
