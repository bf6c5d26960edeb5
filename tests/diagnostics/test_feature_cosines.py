"""The cone against a loop over pairs, and its invariances."""

import pytest
import torch
from fake_snapshot import FakeSnapshot

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.feature_cosines import Cone, mean_cosine


def draw(N=17, D=5, seed=0):
    return torch.randn(N, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5


def measured(h):
    return Cone().measure(FakeSnapshot(features=h))


def in_pairs(h):
    pairs = [(i, j) for i in range(len(h)) for j in range(i)]
    return sum(float(h[i] @ h[j] / (h[i].norm() * h[j].norm())) for i, j in pairs) / len(pairs)


@pytest.mark.parametrize(("N", "D"), [(17, 5), (2, 3), (4, 30)])
def test_the_mean_equals_a_loop_over_pairs(N, D):
    assert measured(draw(N, D)).value == pytest.approx(in_pairs(draw(N, D)), rel=1e-10)


def test_scaling_each_sample_and_rotating_all_changes_nothing():
    h = draw()
    Q, _ = torch.linalg.qr(draw(5, 5, seed=1))
    scales = torch.rand(17, 1, generator=torch.Generator().manual_seed(2)).double() + 0.1
    assert mean_cosine(h * scales @ Q) == pytest.approx(mean_cosine(h), rel=1e-10)


def test_closed_forms_of_one_direction_a_simplex_and_orthogonal_features():
    assert measured(torch.ones(6, 3) * torch.arange(1, 7)[:, None]).value == pytest.approx(1)
    assert measured(torch.eye(4) - 0.25).value == pytest.approx(-1 / 3, abs=1e-6)
    assert measured(torch.eye(4)).value == pytest.approx(0)


def test_samples_without_features_are_left_out():
    h = draw()
    h[3] = h[9] = 0
    reading = measured(h)
    assert reading.value == pytest.approx(in_pairs(torch.cat([h[:3], h[4:9], h[10:]])), rel=1e-10)
    assert reading.details["num_left_out"] == 2


@pytest.mark.parametrize(
    ("h", "reason"),
    [
        (torch.zeros(5, 3), "all units of the layer are dead"),
        (torch.full((5, 3), torch.nan), "NaN or Inf"),
        (torch.ones(5), "expected (N, D)"),
        (torch.eye(5)[:, :1], "1 samples have features that are not zero"),
    ],
    ids=["dead", "nan", "numbers", "one sample"],
)
def test_missing_with_the_reason(h, reason):
    with pytest.raises(Missing) as caught:
        measured(h)
    assert reason in str(caught.value)
