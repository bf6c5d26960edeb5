"""Running fits against numpy's, known laws, and a watched run whose weights walk at random."""

import math

import numpy as np
import pytest
import torch
from cases import CASES
from fake_snapshot import FakeSnapshot

import trainvitals as tv
from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.growth_law import MIN_POINTS, GrowthLaw, LineFit


def at(step, distance):
    """A snapshot at this step whose weights, in two tensors, lie at this distance from their start."""
    start = {"a": torch.ones(3, dtype=torch.float64), "b": torch.zeros(2, dtype=torch.float64)}
    a, b = torch.tensor([0.6, 0, 0], dtype=torch.float64), torch.tensor([0, 0.8], dtype=torch.float64)
    now = {"a": start["a"] + a * distance, "b": start["b"] + b * distance}
    return FakeSnapshot(parameters=now, initial_parameters=start, step=step)


def measured(steps, distances):
    diagnostic, readings = GrowthLaw(), None
    for step, distance in zip(steps, distances, strict=True):
        try:
            readings = diagnostic.measure(at(step, distance))
        except Missing as reason:
            readings = reason
    return readings


def test_a_running_fit_equals_numpys():
    r = np.random.default_rng(0)
    x = 1e6 + r.normal(size=50)  # far from zero, where sums of squares would cancel
    y = 3 - 2 * x + r.normal(size=50)
    fit = LineFit()
    for a, b in zip(x, y, strict=True):
        fit.add(float(a), float(b))
    assert fit.slope == pytest.approx(np.polyfit(x - 1e6, y, 1)[0], rel=1e-8)
    assert fit.r_squared == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2, rel=1e-8)


@pytest.mark.parametrize(("law", "better"), [(math.log, "r2_log"), (math.sqrt, "r2_sqrt")])
def test_the_law_that_made_the_distances_fits_best(law, better):
    steps = [int(1.3**k) + k for k in range(1, 30)]
    readings = measured(steps, [1 + 0.5 * law(step) for step in steps])
    worse = {"r2_log": "r2_sqrt", "r2_sqrt": "r2_log"}[better]
    assert readings[better].value == pytest.approx(1, abs=1e-12)
    assert readings[better].details["slope"] == pytest.approx(0.5, rel=1e-9)
    assert readings[better].details["num_points"] == 29
    assert readings[worse].value < 0.95


def test_values_equal_the_squared_correlation():
    r = np.random.default_rng(1)
    steps, distances = np.arange(5, 105, 5), np.sort(r.random(20))
    readings = measured(steps.tolist(), distances.tolist())
    for part, of in {"r2_log": np.log, "r2_sqrt": np.sqrt}.items():
        assert readings[part].value == pytest.approx(np.corrcoef(of(steps), distances)[0, 1] ** 2, rel=1e-9)


def test_the_start_itself_is_no_point():
    one = measured([0, *range(1, 12)], [0.0, *(math.log(t) for t in range(1, 12))])
    assert one["r2_log"].value == pytest.approx(1, abs=1e-12)
    assert one["r2_log"].details["num_points"] == 11


def test_missing_until_there_are_points_enough():
    reason = measured(range(MIN_POINTS), range(MIN_POINTS))  # step 0 does not count
    assert str(reason) == f"{MIN_POINTS - 1} measurements since the first step, a fit needs {MIN_POINTS}"
    assert not isinstance(measured(range(MIN_POINTS + 1), range(MIN_POINTS + 1)), Missing)


def test_missing_with_the_reason():
    assert "has not changed" in str(measured(range(1, 20), [1.0] * 19))
    assert "one step" in str(measured([3] * 19, range(19)))
    assert "NaN or Inf" in str(measured([1], [math.nan]))
    with pytest.raises(Missing, match="no initial_parameters"):
        GrowthLaw().measure(FakeSnapshot(parameters={"w": torch.ones(2)}))


def test_a_bad_point_does_not_spoil_later_ones():
    readings = measured(range(1, 12), [math.nan if t == 5 else math.log(t) for t in range(1, 12)])
    assert readings["r2_log"].value == pytest.approx(1, abs=1e-12)
    assert readings["r2_log"].details["num_points"] == 10


def test_a_watched_run_gives_the_fit_of_its_own_distances(tmp_path):
    built = CASES[0].build()
    optimizer = torch.optim.SGD(built.model.parameters(), lr=0.05)
    x, y = built.batch
    start = torch.cat([p.detach().reshape(-1) for p in built.model.parameters()])
    distances = []
    with tv.watch(built.model, optimizer, loss=built.loss, train=built.batch, store=tmp_path, probes=["growth_law"],
                  every=2, budget=None) as run:  # fmt: skip
        for step in range(1, 25):
            optimizer.zero_grad()
            built.loss(built.model(x), y).backward()
            optimizer.step()
            if step % 2 == 0:
                now = torch.cat([p.detach().reshape(-1) for p in built.model.parameters()])
                distances.append(float((now - start).norm()))
    latest = {name: reading for name, (_, reading) in tv.open_run(run.path).latest().items()}
    steps = np.arange(2, 25, 2)
    for part, of in {"r2_log": np.log, "r2_sqrt": np.sqrt}.items():
        expected = np.corrcoef(of(steps), distances)[0, 1] ** 2
        assert latest[f"growth_law.{part}"].value == pytest.approx(expected, rel=1e-5)
