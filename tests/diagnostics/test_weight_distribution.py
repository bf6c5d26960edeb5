"""Distributions of weights against scipy and numpy, normal weights, and what order and sign may not change."""

import numpy as np
import pytest
import torch
from cases import CASES
from fake_snapshot import FakeSnapshot
from scipy import stats
from torch import nn

import trainvitals as tv
from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.weight_distribution import (
    WeightDistribution,
    WeightHistogram,
    WeightWasserstein,
    kurtosis,
    near_zero,
)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_numbers_equal_scipys_and_loops(case):
    built = case.build()
    what = ["weights.distribution", "weights.histogram", "weights.wasserstein"]
    found = tv.measure(built.model, loss=built.loss, batch=built.batch, what=what)
    matrices = {n: p.detach().numpy() for n, p in built.model.named_parameters() if p.requires_grad and p.ndim > 1}
    flat = {name: w.ravel() for name, w in matrices.items()}
    small = [sum(abs(v) < 0.01 * np.sqrt((w**2).mean()) for v in w) / len(w) for w in flat.values()]
    for part, expected in (
        ("kurtosis", [stats.kurtosis(w, fisher=False) for w in flat.values()]),
        ("near_zero", small),
        ("largest", [max(abs(v) for v in w) for w in flat.values()]),
    ):
        reading = found[f"weights.distribution.{part}"]
        assert reading.keys == tuple(matrices)
        assert reading.value.tolist() == pytest.approx(expected, rel=1e-9)
    everything = np.concatenate(list(flat.values()))
    reading, num = found["weights.histogram"], len(everything)
    edges = np.linspace(-abs(everything).max(), abs(everything).max(), 201)
    density, _ = np.histogram(everything, edges, density=True)
    # an entry within rounding of an edge may go to either side
    assert np.abs(reading.value - density).max() <= 2.001 / (num * (edges[1] - edges[0]))
    assert np.isclose(reading.value, density).mean() > 0.9
    assert (reading.value * np.diff(reading.details["edges"])).sum() == pytest.approx(1.0)
    assert "weights at the start" in found["weights.wasserstein"].missing


@pytest.mark.parametrize("seed", range(3))
def test_wasserstein_equals_scipys(seed):
    one, other = normal(6, 7, seed=seed), 2 * normal(6, 7, seed=seed + 10) + 1
    snapshot = FakeSnapshot(parameters={"w": one, "b": one[0]}, initial_parameters={"w": other})
    found = WeightWasserstein().measure(snapshot)
    assert found.keys == ("w",)
    expected = stats.wasserstein_distance(one.ravel().numpy(), other.ravel().numpy())
    assert found.value.tolist() == pytest.approx([expected])


def test_wasserstein_sees_sizes_only():
    w = normal(8, 8)
    turned = w.flatten()[torch.randperm(64, generator=torch.Generator().manual_seed(0))].view(8, 8)
    moved = {"same": w, "turned": turned, "shifted": w + 0.25, "scaled": 2 * w}
    snapshot = FakeSnapshot(parameters=moved, initial_parameters=dict.fromkeys(moved, w))
    found = dict(zip(moved, WeightWasserstein().measure(snapshot).value.tolist(), strict=True))
    assert (found["same"], found["turned"]) == (0.0, 0.0)
    assert found["shifted"] == pytest.approx(0.25)
    assert found["scaled"] == pytest.approx(float(w.abs().mean()))


def test_normal_weights_have_kurtosis_3_and_eight_in_a_thousand_near_zero():
    w = normal(1000, 1000)
    assert kurtosis(w) == pytest.approx(3.0, abs=4 * (24 / 1e6) ** 0.5)
    share = 2 * 0.01 / (2 * np.pi) ** 0.5
    assert near_zero(w, 0.01) == pytest.approx(share, abs=4 * (share / 1e6) ** 0.5)


def test_scale_and_sign_change_no_shape_and_shifting_changes_no_kurtosis():
    w = normal(9, 11)
    assert kurtosis(-3 * w + 7) == pytest.approx(kurtosis(w))
    assert near_zero(-3 * w, 0.3) == near_zero(w, 0.3) > 0


def test_missing_with_the_reason():
    nothing = FakeSnapshot(parameters={"b": torch.ones(3)})
    assert WeightDistribution().measure(nothing)["kurtosis"].missing == "the model has no weight matrix"
    with pytest.raises(Missing, match="no weight matrix"):
        WeightHistogram().measure(nothing)
    flat = FakeSnapshot(parameters={"w": torch.full((2, 2), 3.0), "n": torch.full((2, 2), torch.nan)})
    found = WeightDistribution().measure(flat)
    assert found["kurtosis"].missing == "n: it holds NaN or Inf; w: all its entries are equal"
    assert found["largest"].value.tolist() == [3.0]
    assert found["largest"].details["left_out"] == {"n": "it holds NaN or Inf"}
    assert WeightHistogram().measure(flat).details["left_out"] == {"n": "it holds NaN or Inf"}
    with pytest.raises(Missing, match="all weights are zero"):
        WeightHistogram().measure(FakeSnapshot(parameters={"w": torch.zeros(2, 2)}))
    with pytest.raises(Missing, match="every weight matrix holds NaN"):
        WeightHistogram().measure(FakeSnapshot(parameters={"n": torch.full((2, 2), torch.inf)}))
    with pytest.raises(Missing, match="has no 'w'"):
        WeightWasserstein().measure(FakeSnapshot(parameters={"w": torch.ones(2, 2)}, initial_parameters={}))


def test_a_run_starts_at_a_distance_of_zero(tmp_path):
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    x, y = normal(10, 4).float(), normal(10, 3, seed=1).float()
    with tv.watch(
        model, optimizer, loss=nn.functional.mse_loss, train=(x, y), store=tmp_path, every=1,
        probes=["weights.wasserstein", "weights.histogram"],
    ):  # fmt: skip
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
    with tv.open_run("latest", store=tmp_path) as run:
        first, second = run.series("weights.wasserstein")["value"]
    assert first == 0.0 < second


@pytest.mark.parametrize(
    ("cls", "options"), [(WeightDistribution, {"fraction": 0.0}), (WeightHistogram, {"num_bins": 1})]
)
def test_options_that_make_no_number_are_refused(cls, options):
    with pytest.raises(ValueError, match="leave it out for"):
        cls(**options)
