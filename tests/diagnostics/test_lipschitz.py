"""Steepness at the samples against autograd's Jacobians, linear maps, and pairs of points."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import CASES
from torch import nn

import trainvitals as tv
from trainvitals.diagnostics import lipschitz
from trainvitals.diagnostics.lipschitz import Lipschitz, spectral_norms


def measured(model, loss, batch, num_samples=None, **arguments):
    found = tv.measure(model, loss=loss, batch=batch, what={"lipschitz": {"num_samples": num_samples}}, **arguments)
    return found["lipschitz.largest"], found["lipschitz.mean"]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_norms_equal_numpys_of_autograds_jacobians(case):
    built = case.build()
    largest, mean = measured(built.model, built.loss, built.batches)
    model, (x, _) = built.model.eval(), built.batch
    norms = []
    for i in range(len(x)):
        J = torch.autograd.functional.jacobian(lambda inputs: model(inputs[None])[0], x[i])
        norms.append(np.linalg.norm(J.reshape(len(J), -1).numpy(), 2))
    assert largest.value == pytest.approx(max(norms), rel=1e-6)
    assert largest.details["sample"] == int(np.argmax(norms))
    assert mean.value == pytest.approx(np.mean(norms), rel=1e-6)
    assert mean.error == pytest.approx(np.std(norms, ddof=1) / len(norms) ** 0.5, rel=1e-5)


def test_a_linear_map_is_as_steep_everywhere_as_its_norm_and_scales_with_it():
    torch.manual_seed(0)
    model, x = nn.Linear(6, 3), torch.randn(10, 6)
    sigma = float(torch.linalg.matrix_norm(model.weight.detach(), 2))
    for found in measured(model, F.mse_loss, (x, torch.zeros(10, 3))):
        assert found.value == pytest.approx(sigma, rel=1e-5)
    assert spectral_norms(-3 * model.weight.detach()[None])[0].item() == pytest.approx(3 * sigma, rel=1e-5)


def test_no_lipschitz_constant_is_smaller_than_the_largest():
    built = CASES[0].build()
    largest, _ = measured(built.model, built.loss, built.batches)
    model, x = built.model.eval(), built.batch[0][largest.details["sample"]]
    J = torch.autograd.functional.jacobian(lambda inputs: model(inputs[None])[0], x)
    _, _, Vt = torch.linalg.svd(J)
    near = x + 1e-6 * Vt[0]
    with torch.no_grad():
        slope = float((model(near[None]) - model(x[None])).norm() / 1e-6)
    assert slope == pytest.approx(largest.value, rel=1e-3)


def test_pieces_and_subsets_give_the_same_numbers_for_the_same_samples(monkeypatch):
    built = CASES[-1].build()
    whole = measured(built.model, built.loss, built.batches, num_samples=20)
    monkeypatch.setattr(lipschitz, "MAX_BYTES", 1)
    pieces = measured(built.model, built.loss, built.batches, num_samples=20)
    assert [r.value for r in pieces] == pytest.approx([r.value for r in whole])
    assert whole[1].details["num_samples"] == 20
    assert whole[0].value <= measured(built.model, built.loss, built.batches)[0].value


def test_one_output_without_a_dimension_of_its_own_is_one():
    model = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))
    x, y = torch.randn(5, 4), torch.zeros(5)
    largest, _ = measured(model, F.mse_loss, (x, y))
    assert largest.value == pytest.approx(float(model[0].weight.detach().norm()), rel=1e-5)
    assert measured(model, F.mse_loss, (x[:1], y[:1]))[1].error is None


def test_missing_with_the_reason(monkeypatch):
    model, x, y = nn.Linear(2, 3), torch.randn(6, 2), torch.arange(6) % 3
    assert "in train mode" in measured(model, F.cross_entropy, (x, y), mode="train")[0].missing
    tokens = nn.Sequential(nn.Embedding(4, 3), nn.Flatten(), nn.Linear(6, 3))
    assert "torch.int64" in measured(tokens, F.cross_entropy, (torch.zeros(6, 2, dtype=torch.long), y))[0].missing
    wide = nn.Linear(2, 200)
    assert "200 outputs, more than 128" in measured(wide, F.cross_entropy, (x, y))[0].missing
    total = nn.Sequential(model, nn.Flatten(0))
    assert "no row for each sample" in measured(total, lambda z, y: z.mean(), (x, y))[0].missing
    nn.init.constant_(model.weight, torch.nan)
    assert "NaN or Inf" in measured(model, F.cross_entropy, (x, y))[0].missing


def test_a_count_that_is_none_is_refused():
    with pytest.raises(ValueError, match="options of 'lipschitz'"):
        Lipschitz(num_samples=0)
