import numpy as np
import pandas as pd
import pytest

import trainvitals as tv
from trainvitals.run import COLUMNS, UnknownMetricError, UnknownRunError
from trainvitals.schema import Description, Event, Question, Reading, Record, Status
from trainvitals.store.errors import StoreError
from trainvitals.store.writer import RunWriter


@pytest.fixture
def writer(tmp_path):
    described = {"oui": Description("oui", "OUI", Question.OVERFITTING, "s")}
    writer = RunWriter.create(tmp_path, "digits mlp", {"command": ["train.py"]}, described)
    yield writer
    writer.close()


def log(writer, step, readings=None, **scalars):
    writer.append(Record(step, 1.7e9 + step, readings or {}, scalars))
    assert writer.flush(20)


def test_a_number_is_a_row_with_an_empty_key(writer):
    log(writer, 1, {"oui": Reading(0.5, 0.1, converged=True, seconds=0.2)}, loss=1.0)
    log(writer, 2, {"oui": Reading(float("nan"))})
    log(writer, 3, {"oui": Reading.absent("dead")})
    with tv.open_run(writer.path) as run:
        frame = run.series("oui")
        assert list(frame.columns) == COLUMNS == ["step", "time", "key", "value", "error", "converged", "seconds"]
        assert frame.iloc[0].tolist() == [1, 1.7e9 + 1, "", 0.5, 0.1, True, 0.2]
        assert frame.step.tolist() == [1, 2]
        assert np.isnan(frame.value[1])
        assert np.isnan(frame.error[1])
        assert frame.converged[1] is None
        assert frame.seconds[1] == 0.0
        assert run.missing("oui").to_dict("records") == [{"step": 3, "time": 1.7e9 + 3, "reason": "dead"}]
        assert list(run.missing("loss").columns) == ["step", "time", "reason"]
        assert run.names() == ["loss", "oui"]


def test_an_array_is_a_row_a_key(writer):
    log(writer, 1, {"oui.layers": Reading(np.array([0.1, 0.2]), np.array([0.01, 0.02]), True, ("a", "b"), seconds=3.0)})
    log(writer, 2, {"oui.layers": Reading(np.array([0.3, 0.4, 0.5]))})
    log(writer, 3, {"oui.layers": Reading(np.array([[1.0, 2.0], [3.0, 4.0]]), keys=("a", "b"))})
    frame = tv.open_run(writer.path).series("oui.layers")
    assert frame.key.tolist() == ["a", "b", "0", "1", "2", "a[0]", "a[1]", "b[0]", "b[1]"]
    assert frame.value.tolist() == [0.1, 0.2, 0.3, 0.4, 0.5, 1.0, 2.0, 3.0, 4.0]
    assert frame.error[:2].tolist() == [0.01, 0.02]
    assert frame.error[2:].isna().all()
    assert frame.seconds.tolist() == [3.0] * 2 + [0.0] * 7
    assert frame.converged.tolist() == [True] * 2 + [None] * 7


def test_a_metric_that_was_a_number_and_an_array_keeps_the_order_of_steps(writer):
    log(writer, 1, {"m": Reading(1.0)})
    log(writer, 2, {"m": Reading(np.array([2.0, 3.0]))})
    log(writer, 3, {"m": Reading(4.0)})
    assert tv.open_run(writer.path).series("m").value.tolist() == [1.0, 2.0, 3.0, 4.0]


def test_types_of_columns_are_the_same_with_and_without_points(writer):
    log(writer, 5, {"m": Reading(1.0)})
    run = tv.open_run(writer.path)
    assert run.series("m").dtypes.to_dict() == run.series("m", 7).dtypes.to_dict()
    assert len(run.series("m", 7)) == 0
    assert len(run.series("m", 5, 6)) == 1


def test_densities_come_as_spectra(writer):
    grid = np.linspace(-1, 1, 4)
    log(writer, 1, {"hessian.density": Reading(np.ones(4), np.zeros(4), details={"grid": grid})})
    log(writer, 2, {"hessian.density": Reading(2 * np.ones(4), details={"grid": 2 * grid})})
    log(writer, 3, {"hessian.density": Reading.absent("NaN loss")})
    frame = tv.open_run(writer.path).spectra()
    assert list(frame.columns) == ["step", "time", "grid", "density", "error"]
    assert frame.step.tolist() == [1, 2]
    np.testing.assert_array_equal(frame.grid[1], 2 * grid)
    np.testing.assert_array_equal(frame.density[1], 2 * np.ones(4))
    np.testing.assert_array_equal(frame.error[0], np.zeros(4))
    assert frame.error[1] is None


def test_landscapes_come_with_their_coordinates(writer):
    a = np.array([-1.0, 0.0, 1.0])
    log(writer, 1, {"landscape": Reading(1 + a**2, keys=("-1", "0", "1"), details={"coordinates": a})})
    log(writer, 2, {"landscape": Reading(np.outer(a, a), keys=("-1", "0", "1"), details={"coordinates": 2 * a})})
    frame = tv.open_run(writer.path).landscapes()
    assert list(frame.columns) == ["step", "time", "coordinates", "losses"]
    assert frame.step.tolist() == [1, 2]
    np.testing.assert_array_equal(frame.losses[0], 1 + a**2)
    np.testing.assert_array_equal(frame.losses[1], np.outer(a, a))
    np.testing.assert_array_equal(frame.coordinates[1], 2 * a)


def test_each_call_reads_what_is_in_the_file_now(writer):
    run = tv.open_run(writer.path)
    assert (run.names(), run.last_step, run.latest()) == ([], None, {})
    log(writer, 1, loss=1.0)
    assert run.latest() == {"loss": (1, Reading(1.0))}
    log(writer, 2, loss=2.0)
    assert run.series("loss").value.tolist() == [1.0, 2.0]
    assert (run.last_step, run.num_points, run.num_dropped, run.status) == (2, 2, 0, Status.LIVE)
    before = run.updated
    writer.event(Event(2, 5.0, "warning", "hot"))
    writer.close(Status.CRASHED, "ValueError: no")
    assert (run.status, run.message) == (Status.CRASHED, "ValueError: no")
    assert run.updated >= before >= run.started
    pd.testing.assert_frame_equal(
        run.events(), pd.DataFrame([(2, 5.0, "warning", "hot")], columns=["step", "time", "kind", "message"])
    )


def test_the_run_says_what_it_is(writer):
    run = tv.open_run(writer.path)
    assert (run.id, run.name, run.path) == (writer.id, "digits mlp", writer.path)
    assert run.meta == {"command": ["train.py"]}
    assert run.descriptions["oui"].title == "OUI"
    assert writer.id in repr(run)


def test_a_run_opens_by_path_id_beginning_name_or_latest(tmp_path, writer):
    later = RunWriter.create(tmp_path, "digits mlp", {}, {})
    other = RunWriter.create(tmp_path, "cnn", {}, {})
    for wanted, expected in [
        (writer.path, writer), (str(writer.path), writer), (writer.id, writer), ("cnn-", other),
        ("digits mlp", later), ("cnn", other), ("latest", other),
    ]:  # fmt: skip
        assert tv.open_run(wanted, tmp_path).id == expected.id
    assert [run.id for run in tv.list_runs(tmp_path)] == [other.id, later.id, writer.id]
    with pytest.raises(UnknownRunError, match=r"beginning of one run's id, got 'digits' that 2 runs share"):
        tv.open_run("digits", tmp_path)
    with pytest.raises(UnknownRunError, match=r"got 'digit mpl' in open_run.*did you mean digits"):
        tv.open_run("digit mpl", tmp_path)
    with pytest.raises(UnknownRunError, match="newest run there is cnn-"):
        tv.open_run("???", tmp_path)
    later.close()
    other.close()


def test_an_empty_store_and_a_corrupt_file_say_so(tmp_path):
    with pytest.raises(UnknownRunError, match="no readable run"):
        tv.open_run("latest", tmp_path / "none")
    (tmp_path / "bad.sqlite").write_text("no database" * 50)
    with pytest.raises(StoreError, match="not a database"):
        tv.open_run("bad", tmp_path)
    (run,) = tv.list_runs(tmp_path)
    assert "not a database" in run.problem


def test_an_unknown_metric_is_an_error_with_near_names(writer):
    run = tv.open_run(writer.path)
    with pytest.raises(UnknownMetricError, match="it has no metrics yet"):
        run.series("loss")
    log(writer, 1, train_loss=1.0)
    for call in (run.series, run.missing, run.spectra, run.landscapes):
        with pytest.raises(UnknownMetricError, match=r"expected a metric of run .*'trainloss'.*mean train_loss"):
            call("trainloss")


def test_a_closed_run_refuses(writer):
    run = tv.open_run(writer.path)
    run.close()
    with pytest.raises(StoreError, match="expected an open run"):
        run.names()


def test_an_error_that_is_not_one_number_a_value_reads_as_unknown(writer):
    log(writer, 1, {"m": Reading(np.ones((2, 3)), np.ones(2))})
    with tv.open_run(writer.path) as run:
        assert run.series("m")["error"].isna().tolist() == [True] * 6


def test_a_run_with_a_name_longer_than_a_file_name_may_be_is_found_by_it(tmp_path):
    RunWriter.create(tmp_path, "n" * 3000, {}, {}).close()
    with tv.open_run("n" * 3000, store=tmp_path) as run:
        assert run.name == "n" * 3000
    with pytest.raises(UnknownRunError):
        tv.open_run("m" * 3000, store=tmp_path)


def test_few_points_of_a_long_series_keep_its_ends_and_spikes(writer):
    for step in range(3000):
        writer.append(Record(step, 1.7e9 + step, {}, {"loss": 1e9 if step == 1234 else float(step)}))
    assert writer.flush(20)
    run = tv.open_run(writer.path)
    frame = run.series("loss", 10, max_points=50)
    assert list(frame.columns) == COLUMNS
    assert 20 <= len(frame) <= 50
    assert frame.step.iloc[[0, -1]].tolist() == [10, 2999]
    assert frame.value.max() == 1e9
    assert run.damage() == []
    with pytest.raises(StoreError, match=r"expected max_points of at least 8, got 7 in Run.series; "):
        run.series("loss", max_points=7)
