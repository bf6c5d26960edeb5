"""TensorBoard's event files, written by torch's SummaryWriter."""

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter
from typer.testing import CliRunner

import trainvitals as tv
from trainvitals.cli import app
from trainvitals.exchange.histograms import density_of
from trainvitals.exchange.import_tensorboard import find_tensorboard
from trainvitals.exchange.recording import record
from trainvitals.store.errors import StoreError

VALUES = np.random.default_rng(0).normal(size=5000)


def log(folder, *, shift: int = 0, new_style: bool = False) -> None:
    with SummaryWriter(str(folder)) as writer:
        for step in range(50):
            value = {3: np.nan, 4: np.inf}.get(step, step * 0.5 + shift)
            writer.add_scalar("train/loss", value, step, walltime=1.7e9 + step, new_style=new_style)
            writer.add_scalar("lr", 0.1, step, walltime=1.7e9 + step + 0.25, new_style=new_style)
        writer.add_histogram("weights", VALUES, 7, walltime=1.7e9 + 7)
        writer.add_text("note", "words", 1)


@pytest.mark.parametrize("new_style", [False, True])
def test_scalars_come_with_steps_and_wall_times(tmp_path, new_style):
    log(tmp_path / "logs", new_style=new_style)
    (found,) = find_tensorboard(tmp_path / "logs")
    done = record(found, tmp_path / "runs")
    with tv.open_run(done.path) as run:
        loss = run.series("train/loss")
        expected = np.array([np.nan if s == 3 else np.inf if s == 4 else s * 0.5 for s in range(50)])
        np.testing.assert_array_equal(loss["value"], expected.astype(np.float32))  # TensorBoard keeps float32
        assert loss["step"].tolist() == list(range(50))
        np.testing.assert_allclose(loss["time"], 1.7e9 + np.arange(50), atol=1e-6)
        np.testing.assert_allclose(run.series("lr")["time"], 1.7e9 + 0.25 + np.arange(50), atol=1e-6)
        assert run.name == "logs"
        assert run.started == pytest.approx(1.7e9)
        assert run.num_dropped == 0
    assert done.left_out == {"text": 1}


def test_a_histogram_is_a_density_with_its_mass_and_mean(tmp_path):
    log(tmp_path / "logs")
    (found,) = find_tensorboard(tmp_path / "logs")
    with tv.open_run(record(found, tmp_path / "runs").path) as run:
        ((step, _, grid, density, _),) = run.spectra("weights").itertuples(index=False)
        assert step == 7
        assert run.descriptions["weights"].chart == "waterfall"
    # TensorBoard's bins grow by a tenth each: the mean is known to a twentieth of the mean size of a value.
    edges = np.interp(np.arange(len(grid) + 1) - 0.5, np.arange(len(grid)), grid)
    assert np.sum(density * np.diff(edges)) == pytest.approx(1, abs=0.1)
    assert np.average(grid, weights=density * np.diff(edges)) == pytest.approx(VALUES.mean(), abs=0.05)


def test_every_folder_is_a_run_and_restarts_are_joined(tmp_path):
    log(tmp_path / "logs/one")
    log(tmp_path / "logs/two/deep")
    log(tmp_path / "logs/one", shift=100)  # a second file: training went on from the start
    names = {found.name: found for found in find_tensorboard(tmp_path / "logs")}
    assert sorted(names) == ["one", "two/deep"]
    with tv.open_run(record(names["one"], tmp_path / "runs").path) as run:
        series = run.series("train/loss")
        assert len(series) == 100
        assert series[series["step"] == 10]["value"].tolist() == [5.0, 105.0]


@pytest.mark.slow
def test_more_points_than_the_queue_holds_lose_none(tmp_path):
    with SummaryWriter(str(tmp_path / "logs")) as writer:
        for step in range(20_000):
            writer.add_scalar("loss", float(step), step)
    result = CliRunner().invoke(app, ["import", "tensorboard", str(tmp_path / "logs"), "--store", str(tmp_path / "r")])
    assert result.exit_code == 0, result.output
    with tv.open_run("latest", store=tmp_path / "r") as run:
        np.testing.assert_array_equal(run.series("loss")["value"], np.arange(20_000))


def test_a_folder_without_event_files_is_refused(tmp_path):
    with pytest.raises(StoreError, match="event files"):
        find_tensorboard(tmp_path)
    result = CliRunner().invoke(app, ["import", "tensorboard", str(tmp_path)])
    assert result.exit_code == 1


def test_a_density_has_the_mass_of_its_bins():
    edges = np.array([-2.0, -1.0, 0.5, 3.0])
    reading = density_of(np.stack([edges[:-1], edges[1:], [1.0, 2.0, 5.0]], 1))
    np.testing.assert_allclose(reading.value * np.diff(edges), [1 / 8, 2 / 8, 5 / 8])
    np.testing.assert_allclose(reading.details["grid"], [-1.5, -0.25, 1.75])


@pytest.mark.parametrize("bins", [np.zeros((0, 3)), np.zeros((3, 3)), np.array([[0, 1, np.nan]]), np.zeros((2, 2))])
def test_a_histogram_without_content_is_no_reading(bins):
    assert density_of(bins) is None


def test_bins_without_width_or_end_are_kept_finite():
    reading = density_of(np.array([[-1.8e308, 0.0, 1.0], [0.0, 0.0, 2.0], [0.0, 1.0, 1.0], [1.0, 1.8e308, 0.0]]))
    assert np.isfinite(reading.value).all()
    assert np.isfinite(reading.details["grid"]).all()
