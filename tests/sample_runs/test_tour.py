"""The tour names samples, metrics, parameters and pictures that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trainvitals.sample_runs.catalogue import RECORDED, sample
from trainvitals.sample_runs.recordings import recorded_runs

TOUR = RECORDED.parent.parent / "docs" / "tour.md"
TEXT = TOUR.read_text(encoding="utf-8")
STOPS = re.findall(r"^`trainvitals sample open ([\w-]+)` · (.+)$", TEXT, re.MULTILINE)


def test_the_tour_has_ten_numbered_stops():
    assert re.findall(r"^## (\d+)\. ", TEXT, re.MULTILINE) == [str(n) for n in range(1, 11)]
    assert len(STOPS) == 12  # two of them look at two samples


@pytest.mark.parametrize(("name", "metrics"), STOPS, ids=[name for name, _ in STOPS])
def test_a_stop_names_metrics_that_its_recorded_runs_have(name, metrics, tmp_path):
    for run in recorded_runs(sample(name), tmp_path).values():
        missing = [metric for metric in re.findall(r"`([\w.]+)`", metrics)
                   if not any(n == metric or n.startswith(f"{metric}.") for n in run.names())]  # fmt: skip
        assert missing == []


def test_every_changed_parameter_is_one_of_its_sample():
    for part in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]:
        chosen = sample(re.findall(r"sample open ([\w-]+)", part)[0]) if "sample open" in part else None
        for name, value in re.findall(r"--set (\w+)=([\w.]+)", part):
            assert chosen is not None
            assert chosen.changed({name: value})


def test_every_picture_is_there_small_and_shown_once():
    pictures = re.findall(r"!\[.+\]\((.+)\)", TEXT)
    found = {path.name for path in (TOUR.parent / "images" / "tour").glob("*.png")}
    assert sorted(Path(picture).name for picture in pictures) == sorted(found)
    assert {Path(picture).stem for picture in pictures} == {name for name, _ in STOPS}
    assert all((TOUR.parent / picture).stat().st_size <= 100_000 for picture in pictures)
