"""The recorded runs that are shipped: readable, without a machine's name, and what a training gives again."""

from __future__ import annotations

import gzip
import sqlite3
from contextlib import closing

import numpy as np
import pytest

import trainvitals as tv
from trainvitals.sample_runs.catalogue import Sample, sample, samples
from trainvitals.sample_runs.claims import course
from trainvitals.sample_runs.nightly import outcomes
from trainvitals.sample_runs.packing import pack
from trainvitals.sample_runs.recordings import recorded_runs, unpack
from trainvitals.sample_runs.running import lines_of, run_sample

CHEAP = {  # trained anew in the tests: (metric that is compared, its first steps)
    "double-descent": ("loss.heldout", 2),
    "benign-overfitting": ("loss.train", 10),
    "stability-gap": ("heldout.loss", 50),
    "warmup-rescue": ("loss.train", 5),
}
# Other processors add sums in another order, which changes the last bits of float32: 1e-3 after a few steps is far
# more than that and far less than what a change of the data, the start or the step would do. Later the differences
# grow (training is chaotic at the edge of stability), so that claims are compared as such, by whether they hold.
TIGHT = 1e-3


@pytest.mark.parametrize("each", [pytest.param(s, id=s.name) for s in samples()])
def test_the_recorded_runs_give_the_outcome_that_the_document_tells(each: Sample, tmp_path):
    claim = each.claim(recorded_runs(each, tmp_path))
    told = outcomes()[each.name]["seeds"][0]
    assert claim.shown == told["shown"]
    assert claim.effect_is == outcomes()[each.name]["effect_is"]
    assert claim.effect == pytest.approx(float(told["effect"]), rel=1e-3)  # told to four digits
    assert {name: pytest.approx(float(value), rel=1e-3) for name, value in told["figures"].items()} == claim.figures


def test_recorded_runs_are_finished_named_and_say_nothing_of_the_machine(tmp_path):
    unpack(samples(), tmp_path)
    runs = tv.list_runs(tmp_path)
    assert {run.name for run in runs} == {f"{each.name}-{arm}" for each in samples() for arm in each.arms}
    assert {str(run.status) for run in runs} == {"finished"}
    for path in tmp_path.glob("*.sqlite"):
        with closing(sqlite3.connect(path)) as run:
            header = dict(run.execute("SELECT key, value FROM header"))
            text = " ".join(str(row) for row in run.iterdump())
        assert header["process"] == "{}"
        assert tv.open_run(path).meta["environment"]["platform"] == ""
        for place in ("/tmp/", "/home/", "/root/", "/work/"):
            assert place not in text


def test_packing_keeps_every_point_and_leaves_the_run_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr("trainvitals.sample_runs.packing.RECORDED", tmp_path / "recorded")
    chosen = sample("double-descent")
    run = chosen.train(0, width=20, store=tmp_path / "store")
    before = run.path.read_bytes()
    packed = pack(chosen, "width-20", run)
    assert run.path.read_bytes() == before
    copy = tmp_path / "copy.sqlite"
    copy.write_bytes(gzip.decompress(packed.read_bytes()))
    again = tv.open_run(copy)
    assert again.names() == run.names()
    assert not again.damage()
    for name in run.names():
        assert again.series(name).equals(run.series(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", CHEAP)
def test_a_training_repeats_the_recorded_one(name, tmp_path):
    chosen = sample(name)
    metric, num_steps = CHEAP[name]
    outcome = run_sample(chosen, 0, tmp_path / "store")
    assert outcome.claim.shown == outcomes()[name]["seeds"][0]["shown"], "\n".join(lines_of(outcome))
    for arm, recorded in recorded_runs(chosen, tmp_path).items():
        key = "old" if name == "stability-gap" else None
        (steps, expected), (found_steps, found) = (course(run, metric, key) for run in (recorded, outcome.runs[arm]))
        early = steps <= num_steps
        assert np.array_equal(steps[early], found_steps[found_steps <= num_steps])
        assert found[: early.sum()] == pytest.approx(expected[early], rel=TIGHT)
