"""A run at a glance: small, escaped, and a line breaks where a value has no place."""

from __future__ import annotations

import re
import time
from xml.etree import ElementTree

import make_run
import numpy as np
import pytest

import trainvitals as tv
from trainvitals.schema import Description, Record, Scale, Status
from trainvitals.store.writer import RunWriter
from trainvitals.views.tiles import HEIGHT, MAX_TILES, WIDTH, glance, sparkline

X = np.arange(5.0)


def paths(svg):
    return [path.get("d") for path in ElementTree.fromstring(svg).iter("path")]


def points(path):
    return [(float(a), float(b)) for a, b in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path)]


def test_a_line_goes_from_edge_to_edge_and_up_is_more():
    (path,) = paths(sparkline([(X, np.array([0.0, 1.0, 2.0, 3.0, 4.0]))], Scale.LINEAR))
    placed = points(path)
    assert [x for x, _ in placed] == pytest.approx(np.linspace(4, WIDTH - 4, 5), abs=0.1)
    assert [y for _, y in placed] == pytest.approx(np.linspace(HEIGHT - 4, 4, 5), abs=0.1)


def test_a_logarithmic_axis_has_equal_steps_for_equal_factors():
    (path,) = paths(sparkline([(X, 10.0 ** -X)], Scale.LOG))
    assert np.diff([y for _, y in points(path)]) == pytest.approx((HEIGHT - 8) / 4, abs=0.1)


def test_two_lines_share_one_axis():
    low, high = paths(sparkline([(X, X), (X, X + 4)], Scale.LINEAR))
    assert points(low)[-1][1] == points(high)[0][1]  # both are 4


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_a_line_breaks_at_what_is_no_number(odd):
    (path,) = paths(sparkline([(X, np.array([1.0, 2.0, odd, 2.0, 1.0]))], Scale.LINEAR))
    assert path.count("M") == 2
    assert len(points(path)) == 4


def test_values_as_far_apart_as_numbers_go_are_drawn_without_a_warning():
    (path,) = paths(sparkline([(X, np.array([-1e308, 1e308, 0.0, 1.0, 2.0]))], Scale.LINEAR))
    assert len(points(path)) == 5


def test_the_picture_names_the_run_its_state_and_few_metrics(tmp_path):
    make_run.record_run(tmp_path, name="digits-cnn")
    with tv.open_run("latest", store=tmp_path) as run:
        picture = glance(run)
    assert "digits-cnn" in picture
    assert "step 400" in picture
    assert 3 <= picture.count("<svg") <= MAX_TILES
    assert len(picture) < 50_000
    ElementTree.fromstring(picture)  # well-formed: everything of the run's is escaped


def test_hostile_names_are_shown_letter_by_letter(tmp_path):
    hostile = '<script>alert(1)</script>"&'
    writer = RunWriter.create(tmp_path, hostile, {}, {hostile: Description(hostile, hostile, "", "", unit=hostile)})
    for step in range(3):
        writer.append(Record(step, time.time(), scalars={hostile: 1.0, "own": float("nan")}))
    writer.close(Status.FINISHED, "")
    with tv.open_run(writer.path) as run:
        picture = glance(run)
    assert "<script>" not in picture
    assert "&lt;script&gt;" in picture
    ElementTree.fromstring(picture)


def test_a_run_without_a_number_is_a_line_of_state(tmp_path):
    RunWriter.create(tmp_path, "empty", {}, {}).close(Status.FINISHED, "")
    with tv.open_run("latest", store=tmp_path) as run:
        assert "<svg" not in glance(run)
