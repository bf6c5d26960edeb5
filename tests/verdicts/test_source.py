"""What a source reads: the same from memory and from a run file, with the NaN and the gaps that were measured."""

import numpy as np
import pytest

from trainvitals.schema import Event, Reading, Record, Status
from trainvitals.store.reader import RunReader
from trainvitals.store.writer import RunWriter
from trainvitals.verdicts.source import MOST_VECTORS, MemorySource, StoreSource


@pytest.fixture
def stored(tmp_path):
    writer = RunWriter.create(tmp_path, "a", {"optimizer": {"class": "SGD"}}, {})
    for step in range(5):
        value = np.array([1.0 + step, np.nan if step == 3 else 2.0])
        keys = ("x", "y") if step < 4 else ("x", "z")
        writer.append(Record(step, 0.0, {
            "loss.train": Reading(value=float("nan") if step == 2 else 10.0 - step, details={"loss": "cross-entropy"}),
            "units.dead": Reading(value=value, keys=keys),
            "nc1": Reading.absent("only one class in the probe batch"),
        }))  # fmt: skip
    writer.event(Event(3, 0.0, "warning", "something"))
    writer.close(Status.FINISHED)
    return StoreSource(RunReader(writer.path))


def test_numbers_are_those_measured_nan_included(stored):
    raw = stored.numbers("loss.train")
    assert raw.step.tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal(raw.value, [10.0, 9.0, np.nan, 7.0, 6.0], equal_nan=True)


def test_vectors_tell_what_was_nan_from_what_was_not_there(stored):
    raw = stored.vectors("units.dead")
    assert raw.keys == ("x", "y", "z")
    assert raw.value[:, 0].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert np.isnan(raw.value[3, 1])
    assert not raw.absent[3, 1]  # measured as NaN
    assert raw.absent[4].tolist() == [False, True, False]


def test_absences_details_events_and_meta_are_there(stored):
    assert stored.absences("nc1")[0] == (0, "only one class in the probe batch")
    assert stored.details("loss.train") == {"loss": "cross-entropy"}
    assert [event.message for event in stored.events()] == ["something"]
    assert stored.meta["optimizer"]["class"] == "SGD"
    assert stored.names() >= {"loss.train", "units.dead", "nc1"}


def test_unknown_names_have_nothing(stored):
    for source in (stored, MemorySource({})):
        assert len(source.numbers("nothing").step) == 0
        assert len(source.vectors("nothing").step) == 0
        assert source.absences("nothing") == ()
        assert source.details("nothing") == {}


def test_a_held_reader_sees_one_moment(tmp_path):
    writer = RunWriter.create(tmp_path, "a", {}, {})
    writer.append(Record(0, 0.0, scalars={"mine": 1.0}))
    writer.close(Status.FINISHED)
    with RunReader(writer.path).held() as reader:
        first = StoreSource(reader)
        assert first.numbers("mine").value.tolist() == [1.0]
        assert first.names() == {"mine"}


def test_many_vectors_are_sampled_over_the_run_with_its_last(tmp_path):
    writer = RunWriter.create(tmp_path, "a", {}, {})
    n = 5 * MOST_VECTORS
    for step in range(n):
        writer.append(Record(step, 0.0, {"units.dead": Reading(value=np.array([float(step)]), keys=("x",))}))
    writer.close(Status.FINISHED)
    raw = StoreSource(RunReader(writer.path)).vectors("units.dead")
    assert MOST_VECTORS / 2 <= len(raw.step) <= 2 * MOST_VECTORS
    assert raw.step[0] < n / MOST_VECTORS * 2
    assert raw.step[-1] == n - 1
    assert raw.value[:, 0].tolist() == raw.step.tolist()
    assert np.diff(raw.step).max() <= 4 * n / MOST_VECTORS


def test_memory_gives_numbers_and_vectors_by_their_shape():
    source = MemorySource({"a": ([0, 1], [1.0, 2.0]), "b": ([0], [[1.0, 2.0]], ("x", "y"))})
    assert source.numbers("a").value.tolist() == [1.0, 2.0]
    assert len(source.vectors("a").step) == 0
    assert source.vectors("b").keys == ("x", "y")
    assert len(source.numbers("b").step) == 0
