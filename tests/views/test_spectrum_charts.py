"""Spectra as charts: every narrow outlier is seen, and nothing is drawn that was not measured."""

import numpy as np
import pandas as pd
import pytest
from test_charts import as_dict, described, points, trace

from trainvitals.schema import Chart
from trainvitals.views import spectrum_charts
from trainvitals.views.spectrum_cells import SpectrumCells


@pytest.fixture
def spectra() -> pd.DataFrame:
    rows = []
    for step in (0, 50, 100):
        grid = np.linspace(-5, 50 + step, 500)
        density = np.exp(-(grid**2)) + 1e-3 * np.exp(-0.5 * ((grid - 40 - step) / 0.2) ** 2)
        rows.append((step, 0.0, grid, density, 0.1 * density))
    return pd.DataFrame(rows, columns=["step", "time", "grid", "density", "error"])


def test_the_waterfall_shows_a_narrow_outlier_at_its_eigenvalue(spectra):
    figure = as_dict(spectrum_charts.spectrum_over_steps(described(chart=Chart.WATERFALL), spectra))
    heat = figure["data"][0]
    z, y = np.array(heat["z"]), np.array(heat["y"])
    assert z.shape == (spectrum_charts.SPECTRUM_ROWS, 3)
    highest = np.argmax(np.where(y[:, None] > 2, z, -np.inf), axis=0)  # away from the bulk
    assert (np.diff(y[highest]) > 0).all()  # 40, 90, 140: the outlier moves up
    assert "100" in figure["layout"]["yaxis"]["ticktext"]


def test_first_and_last_spectrum_with_the_band_of_the_last(spectra):
    figure = as_dict(spectrum_charts.spectrum_now(described(), spectra))
    assert {"step 0", "step 100", "± error"} == {t["name"] for t in figure["data"]}
    assert figure["layout"]["yaxis"]["type"] == "log"
    assert figure["layout"]["xaxis"]["title"]["text"] == "eigenvalue"


def test_the_outline_ends_seven_decades_below_the_highest_and_keeps_every_peak(spectra):
    now = as_dict(spectrum_charts.spectrum_now(described(), spectra))
    x, y = (np.array(trace(now, "step 100")[axis]) for axis in "xy")
    highest = max(spectra["density"].iloc[-1].max(), spectra["density"].iloc[0].max())
    assert y.min() == pytest.approx(highest * 1e-7)
    assert y.max() == pytest.approx(spectra["density"].iloc[-1].max())
    assert y[x > 2].max() == pytest.approx(1e-3, rel=0.2)  # the outlier at 140, far from the bulk


def test_the_largest_eigenvalues_are_ticks_at_their_place_for_their_step(spectra):
    table = pd.concat([points([0, 100], [40.0, 140.0], error=0.5, key="λ1"), points([100], [np.nan], key="λ2")])
    figure = as_dict(spectrum_charts.spectrum_now(described(), spectra, largest=table))
    cells = SpectrumCells([spectra["grid"].iloc[i] for i in (0, -1)], spectrum_charts.OUTLINE_CELLS)
    ticks = trace(figure, "largest eigenvalues, step 100")
    assert ticks["x"] == cells.of(np.array([140.0])).tolist()
    assert ticks["customdata"] == ["λ1 = 140 ± 0.5 at step 100"]
    assert trace(figure, "largest eigenvalues, step 0")["x"] == cells.of(np.array([40.0])).tolist()


def test_without_recorded_eigenvalues_no_ticks_are_drawn(spectra):
    figure = as_dict(spectrum_charts.spectrum_now(described(), spectra, largest=points([7], [1.0])))
    assert not [t for t in figure["data"] if t["name"].startswith("largest")]


def test_single_eigenvalues_and_the_threshold_stand_on_the_waterfall(spectra):
    top = points([0, 50, 100], [40, 90, 140], key="1")
    figure = as_dict(spectrum_charts.spectrum_over_steps(
        described(chart=Chart.WATERFALL), spectra, outliers=[top], threshold=points([0, 50, 100], [100, 100, 1e9]),
    ))  # fmt: skip
    marks, line = trace(figure, "measured one by one"), trace(figure, "stability threshold")
    cells = SpectrumCells(list(spectra["grid"]), spectrum_charts.SPECTRUM_ROWS)
    assert marks["y"] == pytest.approx(cells.of(np.array([40.0, 90.0, 140.0])).tolist())
    assert line["y"][:2] == pytest.approx(cells.of(np.array([100.0, 100.0])).tolist())
    assert np.isnan(line["y"][2])  # far above all eigenvalues: it would press them together


def test_a_threshold_far_above_everything_is_not_drawn(spectra):
    figure = as_dict(spectrum_charts.spectrum_over_steps(
        described(chart=Chart.WATERFALL), spectra, threshold=points([0], [1e9])))  # fmt: skip
    assert "stability threshold" not in [t.get("name") for t in figure["data"]]
