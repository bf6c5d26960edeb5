"""Two and four processes that train one model: nothing changes, one run, the numbers of one process."""

from __future__ import annotations

import numpy as np
import pytest
import rank_jobs
import torch
from rank_processes import run_ranks

import trainvitals as tv

pytestmark = pytest.mark.slow

EVERY_METRIC = {"probes": ["full", "hessian", "grad", "ggn", "fisher"], "every": rank_jobs.NUM_STEPS}
ITERATED = {"hessian.tracked"}  # an estimate that stops at its tolerance: rounding moves it within its error


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    found, codes = run_ranks(rank_jobs.two_ranks, 2, tmp_path_factory.mktemp("pair"))
    assert codes == [0, 0]
    return found


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    found, codes = run_ranks(rank_jobs.four_ranks, 4, tmp_path_factory.mktemp("four"))
    assert codes == [0, 0, 0, 0]
    return found


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    return rank_jobs.measured(0, 1, tmp_path_factory.mktemp("single"), "one", **EVERY_METRIC)


def different(path, reference):
    """Return the metrics of a run that are not those of another to 1e-5 relative."""
    run, other = tv.open_run(path), tv.open_run(reference)
    found = []
    for name in other.names():
        if name.startswith("probe.") or name not in run.names():
            continue
        ours, theirs = (r.series(name)["value"].to_numpy(float) for r in (run, other))
        scale = 1e-5 * np.nanmax(np.abs(theirs), initial=0.0)  # a number beside larger ones of its array
        if name in ITERATED:
            scale = np.nanmax(other.series(name)["error"].to_numpy(float))
        if ours.shape != theirs.shape or not np.allclose(ours, theirs, rtol=1e-5, atol=scale, equal_nan=True):
            found.append(name)
    return found


@pytest.mark.parametrize("name", list(rank_jobs.WRAPPED))
def test_losses_gradients_weights_and_random_states_are_bit_for_bit_the_same_on_two_ranks(pair, name):
    assert all(rank["neutral"][name]["same"] for rank in pair)
    assert all(rank["neutral"][name]["num"] > 20 for rank in pair)


def test_the_same_on_four_ranks(four):
    assert all(rank["neutral"]["ddp"]["same"] for rank in four)
    assert all(rank["hybrid"]["same"] for rank in four)


@pytest.mark.parametrize("name", list(rank_jobs.WRAPPED))
def test_there_is_one_run_that_all_ranks_name(pair, name):
    first, second = (rank["neutral"][name] for rank in pair)
    assert (first["id"], first["path"]) == (second["id"], second["path"])
    run = tv.open_run(first["path"])
    assert run.status == "finished"
    assert run.series("loss.train")["step"].tolist() == list(range(rank_jobs.NUM_STEPS + 1))
    assert run.series("hessian.top")["step"].nunique() == rank_jobs.NUM_STEPS + 1
    assert run.events()["kind"].tolist() == ["finished"]
    assert run.meta["num_ranks"] == 2


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_ranks_with_uneven_parts_measure_what_one_process_with_all_samples_does(pair, single, kind):
    assert len(tv.open_run(single).names()) > 150
    assert set(tv.open_run(pair[0][kind]).names()) == set(tv.open_run(single).names())
    assert different(pair[0][kind], single) == []


def test_the_first_ranks_running_means_are_everybodys_in_probe_passes(pair):
    states = [rank["neutral"]["ddp"]["state"] for rank in pair]
    assert not torch.equal(states[0]["norm.running_mean"], states[1]["norm.running_mean"])
    model = rank_jobs.built(rank_jobs.Net)
    model.load_state_dict(states[0])
    what = ["loss.train", "hessian.top", "ggn.top", "grad.noise_scale"]
    expected = tv.measure(model, loss=rank_jobs.loss_fn, batch=rank_jobs.data(), what=what)
    run = tv.open_run(pair[0]["neutral"]["ddp"]["path"])
    for name in what:
        points = run.series(name)
        last = points[points["step"] == rank_jobs.NUM_STEPS]["value"].to_numpy(float)
        np.testing.assert_allclose(last, np.atleast_1d(expected[name].value), rtol=1e-5, err_msg=name)


def test_four_ranks_measure_what_one_process_does(four, single):
    assert tv.open_run(four[0]["ddp"]).series("hessian.top")["step"].nunique() == 2
    assert different(four[0]["ddp"], single) == []


def test_copies_of_parts_are_measured_too(four):
    run = tv.open_run(four[0]["hybrid"]["path"])
    assert run.series("hessian.top")["step"].nunique() == rank_jobs.NUM_STEPS + 1


def test_a_rank_that_fails_is_a_warning_and_the_first_measures_alone(pair):
    (path, said), (_, other) = (rank["failing"] for rank in pair)
    assert len(said) == 1
    assert "this rank is ill" in said[0]
    assert other == []
    run = tv.open_run(path)
    assert run.status == "finished"
    assert run.series("hessian.top")["value"].notna().all()
    assert different(path, pair[0]["neutral"]["ddp_no_sync"]["path"]) == []  # the same training, in two micro-batches


def test_without_a_second_derivative_all_ranks_take_finite_differences(pair):
    (path, said), (_, other) = (rank["rough"] for rank in pair)
    assert len(said) == 1
    assert "finite differences" in said[0]
    assert other == []
    run = tv.open_run(path)
    exact = tv.open_run(pair[0]["neutral"]["ddp_no_sync"]["path"]).series("hessian.top")
    top = run.series("hessian.top")
    first = exact[exact["key"] == exact["key"].iloc[0]]["value"].to_numpy()
    assert np.allclose(top[top["key"] == top["key"].iloc[0]]["value"], first, rtol=1e-4)


def test_a_budget_decides_on_the_first_rank_and_nobody_waits(pair):
    run = tv.open_run(pair[0]["budget"])
    assert run.status == "finished"
    assert len(run.series("loss.train")) > 1
    assert run.events()["kind"].tolist() == ["finished"]


def test_a_rank_that_closes_early_is_not_waited_for(pair):
    (path, said), (_, other) = (rank["closing"] for rank in pair)
    assert len(said) == 1
    assert "has closed its watch" in said[0]
    assert other == []
    assert tv.open_run(path).series("hessian.top")["step"].nunique() == rank_jobs.NUM_STEPS + 1


def test_the_first_rank_can_watch_alone(pair):
    assert pair[1]["alone"] == ""
    assert tv.open_run(pair[0]["alone"]).meta.get("num_ranks") is None


def test_a_rank_that_nobody_joins_is_told_so(pair):
    assert "expected all 2 ranks" in pair[0]["lonely"]
    assert "ranks='this'" in pair[0]["lonely"]


def test_what_is_wrong_on_one_rank_is_an_error_on_all(pair):
    first, second = (rank["refused"] for rank in pair)
    assert set(first) == set(second) == {"bad batch", "bad shapes", "other metrics", "bad store", "side"}
    assert "on rank 1" in first["bad batch"]
    assert "on rank 1" in second["bad batch"]
    assert "same arguments on every rank" in first["other metrics"]
    assert "on rank 0" in second["bad store"]


@pytest.mark.parametrize("job", [rank_jobs.second_killed, rank_jobs.first_killed], ids=["second", "first"])
def test_a_killed_rank_leaves_a_readable_run_that_is_not_live(job, tmp_path):
    _, codes = run_ranks(job, 2, tmp_path)
    assert -9 in codes
    assert 0 not in codes
    (found,) = tv.list_runs(tmp_path / "runs")
    run = tv.open_run(found.id, store=tmp_path / "runs")
    assert run.status == "crashed"
    assert run.series("seen")["step"].tolist()[:3] == [0, 1, 2]
    assert run.series("hessian.top")["step"].max() >= 2
