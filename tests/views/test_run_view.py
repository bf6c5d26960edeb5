"""What a page reads of a run: no more than it shows, and only what is new."""

import numpy as np
import pytest

from trainvitals.run import open_run
from trainvitals.schema import Reading, Record
from trainvitals.store.writer import RunWriter
from trainvitals.views.run_view import RunCache, RunView
from trainvitals.views.thinning import MAX_POINTS, most_points

NUM_STEPS = 10_000


@pytest.fixture
def writer(tmp_path):
    writer = RunWriter.create(tmp_path, "run", {}, {}, max_records=10**6)
    for step in range(NUM_STEPS):
        log(writer, step, 1e6 if step == 4_345 else np.sin(step / 1000))
    assert writer.flush(60)
    yield writer
    writer.close()


def log(writer, step, value):
    writer.append(Record(step, 1e9 + step, {"m": Reading(float(value), seconds=0.5)} if step % 2 else {}, {"a": value}))


@pytest.fixture
def run(writer):
    """A run that counts the rows that were read from it."""
    run = open_run(writer.path)
    run.num_rows = 0
    series = run.series

    def counted(*arguments, **options):
        table = series(*arguments, **options)
        run.num_rows += len(table)
        return table

    run.series = counted
    return run


def test_a_long_metric_is_read_as_far_as_it_is_shown_with_its_spike(run):
    points = RunView(run).measured("a").points
    assert run.num_rows <= MAX_POINTS
    assert points["step"].iloc[[0, -1]].tolist() == [0, NUM_STEPS - 1]
    assert points["value"].max() == 1e6


def test_a_chosen_part_is_read_for_itself_in_its_own_detail(run):
    cache = RunCache()
    RunView(run, cache).measured("a")
    for window in [(4_300, 4_400), (0, 100), (9_900, None), (None, 50), (4_300, 4_400)]:
        points = RunView(run, cache, window).measured("a").points
        first, last = window[0] or 0, NUM_STEPS - 1 if window[1] is None else window[1]
        assert points["step"].tolist() == list(range(first, last + 1))


def test_a_point_that_is_new_is_read_alone_and_old_ones_are_thinned_again_in_time(run, writer):
    cache = RunCache()
    RunView(run, cache).points("a")
    for part in range(8):
        before = run.num_rows
        first = NUM_STEPS + 300 * part
        for step in range(first, first + 300):
            log(writer, step, 0.5)
        assert writer.flush(20)
        points = RunView(run, cache).points("a")
        assert points["step"].iloc[-1] == first + 299
        assert len(points) <= 2 * MAX_POINTS
        assert run.num_rows - before <= 301 + MAX_POINTS
        assert points["value"].max() == 1e6
        assert points["step"].is_monotonic_increasing
    assert run.num_rows <= 3 * MAX_POINTS + 8 * 301


def test_what_a_metric_cost_is_summed_over_every_point_without_reading_its_values(run, writer):
    log(writer, NUM_STEPS, 0.0)  # a point that is not in a chunk yet
    assert writer.flush(20)
    assert run.spent("m") == (pytest.approx(0.5 * (NUM_STEPS // 2)), NUM_STEPS // 2)
    assert run.spent("a") == (0.0, NUM_STEPS + 1)
    assert run.num_rows == 0


def test_of_many_layers_no_more_steps_are_read_than_a_heatmap_shows(tmp_path):
    keys = tuple(f"layer{i}" for i in range(100))
    with RunWriter.create(tmp_path, "run", {}, {}, max_records=10**6) as writer:
        for step in range(700):
            writer.append(Record(step, 1e9 + step, {"v": Reading(np.full(100, float(step)), keys=keys)}))
    with open_run(writer.path) as run:
        points = RunView(run).points("v")
        assert points["step"].nunique() == most_points(100) == 200
        assert points["step"].iloc[-1] == 699
        assert run.spent("v") == (0.0, 700)
