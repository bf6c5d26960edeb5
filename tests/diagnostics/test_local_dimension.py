"""The local dimension against loops over samples, and on sets whose dimension is known."""

import math

import pytest
import torch
from fake_snapshot import FakeSnapshot

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.local_dimension import LocalDimension, local_dimensions


def cloud(N=30, D=4, seed=0):
    return torch.randn(N, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def measured(h, **options):
    return LocalDimension(**options).measure(FakeSnapshot(features=h))


def by_loops(h, k):
    found = []
    for i in range(len(h)):
        T = sorted(math.dist(h[i].tolist(), h[j].tolist()) for j in range(len(h)) if j != i)[:k]
        found.append((k - 2) / sum(math.log(T[k - 1] / T[j]) for j in range(k - 1)))
    return found


@pytest.mark.parametrize("k", [3, 8, 20])
def test_it_equals_a_loop_over_samples(k):
    h = cloud()
    expected = by_loops(h, k)
    assert local_dimensions(torch.cdist(h, h).fill_diagonal_(torch.inf), k).tolist() == pytest.approx(expected)
    reading = measured(h, k=k)
    assert reading.value == pytest.approx(math.prod(expected) ** (1 / 30))
    assert reading.details["mean"] == pytest.approx(sum(expected) / 30)
    assert reading.details["harmonic_mean"] == pytest.approx(30 / sum(1 / m for m in expected))


def test_rotation_scale_shift_and_order_change_nothing():
    h = cloud()
    Q = torch.linalg.qr(cloud(4, 4, 9))[0]
    moved = 1e3 * h[torch.randperm(30, generator=torch.Generator().manual_seed(0))] @ Q + 7
    assert measured(moved).value == pytest.approx(measured(h).value)


def torus(N, d, seed):
    """A flat d-dimensional torus in 2d dimensions: even density and no border, but it is curved."""
    angles = 2 * math.pi * torch.rand(N, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.cat([angles.cos(), angles.sin()], 1)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_the_mean_estimate_on_a_torus_is_its_dimension(d):
    # of each sample's estimate the deviation is d/√(k−3) (Levina and Bickel): over some N/k independent
    # neighbourhoods, 3 standard errors; the rest is curvature
    N, k = 1500, 20
    found = measured(torus(N, d, seed=d), k=k).details["mean"]
    assert found == pytest.approx(d, abs=3 * d / math.sqrt((k - 3) * N / k) + 0.02 * d)


def test_the_estimator_is_unbiased_where_the_density_is_even():
    # distances of even density in d dimensions: T^d are uniform
    generator, d, k = torch.Generator().manual_seed(0), 5, 6
    T = torch.rand(20000, 40, generator=generator, dtype=torch.float64).sort(1).values[:, :k] ** (1 / d)
    m = (k - 2) / torch.log(T[:, -1:] / T[:, :-1]).sum(1)
    assert float(m.mean()) == pytest.approx(d, abs=4 * float(m.std()) / math.sqrt(20000))


def test_copies_and_equal_distances_are_left_out():
    h = cloud(40)
    copied = torch.cat([h, h[:3]])
    reading = measured(copied, k=8)
    assert reading.details["num_left_out"] == 6
    assert math.isfinite(reading.value)


@pytest.mark.parametrize(
    ("h", "reason"),
    [
        (torch.zeros(30, 3), "all units of the layer are dead"),
        (torch.ones(30, 3), "every sample has a copy"),
        (torch.eye(30), "equally far"),
        (torch.randn(20, 3), "20 neighbours need 21"),
        (torch.randn(30), "expected (N, D)"),
        (torch.full((30, 3), torch.nan), "NaN or Inf"),
    ],
    ids=["dead", "constant", "simplex", "few", "numbers", "nan"],
)
def test_missing_with_the_reason(h, reason):
    with pytest.raises(Missing) as caught:
        measured(h)
    assert reason in str(caught.value)


@pytest.mark.parametrize("wrong", [2, 3.5, True])
def test_k_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match="expected a whole number of at least 3"):
        LocalDimension(k=wrong)
