"""An analysis of checkpoints: the numbers of the live run, whoever does the work, whatever is wrong with some files."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from checkpoints import live_training as live
from checkpoints.counted_loads import CountedLoads
from checkpoints.saved import FORMATS, Malicious, batch, build, loss, trained
from torch import nn

import trainvitals as tv
from trainvitals.checkpoints.errors import CheckpointError

FEW = ["loss.train", "loss.heldout", "overtraining", "cka", "weights.norm", "stability", "hessian.tracked", "oui",
       "growth_law", "memorised", "grad.noise_scale"]  # fmt: skip


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> live.Trained:
    return live.train(tmp_path_factory.mktemp("few"), FEW, 8)


def test_the_numbers_are_those_of_the_live_run(few, tmp_path):
    post = tv.analyze(few.folder, **few.arguments, what=FEW, store=tmp_path, workers=1)
    assert live.assert_same_numbers(tv.open_run(few.run), post, 1e-6) > 200
    assert post.status == "finished"
    assert post.series("stability.threshold")["value"].notna().all()  # the optimiser's state was used
    assert set(post.meta) >= set(tv.open_run(few.run).meta) - {"note", "tags", "where"}


def test_any_executor_gives_the_same_numbers(few, tmp_path):
    with ThreadPoolExecutor(3) as executor:
        post = tv.analyze(few.folder, **few.arguments, what=FEW, store=tmp_path, executor=executor)
    assert live.assert_same_numbers(tv.open_run(few.run), post, 1e-6) > 200


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
def test_everything_is_as_in_the_live_run_with_two_processes(dtype, tolerance, tmp_path):
    seen = live.train(tmp_path, "full", 4, dtype)
    post = tv.analyze(seen.folder, **seen.arguments, what="full", store=tmp_path / "post", workers=2)
    assert live.assert_same_numbers(tv.open_run(seen.run), post, tolerance) > 1000


def test_an_analysis_goes_on_with_new_checkpoints_and_metrics_and_redoes_nothing(few, tmp_path):
    folder = tmp_path / "some"
    folder.mkdir()
    files = sorted(few.folder.iterdir(), key=lambda file: int(file.stem.split("_")[1]))
    for file in files[:4]:
        shutil.copy(file, folder)
    first = tv.analyze(folder, **few.arguments, what=FEW[:-2], store=tmp_path / "runs", workers=1)
    before = {name: first.series(name) for name in first.names()}
    for file in files[4:]:
        shutil.copy(file, folder)
    second = tv.analyze(folder, **few.arguments, what=FEW, store=tmp_path / "runs", workers=1)
    assert second.id == first.id
    live.assert_same_numbers(tv.open_run(few.run), second, 1e-6)
    for name, points in before.items():
        now = second.series(name)
        now = now[now["step"].isin(points["step"])].reset_index(drop=True)
        assert now["time"].tolist() == points["time"].tolist(), name  # the very points of before
    anew = tv.analyze(folder, **few.arguments, what=FEW[:1], store=tmp_path / "runs", workers=1, resume=False)
    assert anew.id != first.id


def test_what_is_wrong_with_some_checkpoints_is_told_and_the_others_go_on(few, tmp_path):
    folder = tmp_path / "all"
    shutil.copytree(few.folder, folder)
    whole = (folder / "step_6.pt").read_bytes()
    (folder / "step_6.pt").write_bytes(whole[: len(whole) // 2])
    torch.save({"model": live.build().state_dict(), "x": Malicious(tmp_path / "executed")}, folder / "step_100.pt")
    state = torch.load(folder / "step_9.pt", weights_only=True)
    torch.save({**state, "model": {k.replace("weight", "weihgt"): v for k, v in state["model"].items()}},
               folder / "step_9.pt")  # fmt: skip
    torch.save({"model": build().state_dict()}, folder / "step_101.pt")
    state = torch.load(folder / "step_12.pt", weights_only=True)
    state["model"]["0.bias"][0] = torch.nan
    torch.save(state, folder / "step_12.pt")
    shutil.copy(folder / "step_3.pt", folder / "copy_of_step_3.pt")
    post = tv.analyze(folder, **few.arguments, what=["loss.train", "overtraining"], store=tmp_path / "runs", workers=1)
    assert post.status == "finished"
    assert post.series("loss.train")["step"].tolist() == [0, 3, 15, 18, 21]
    told = post.events().query("kind == 'checkpoint'").set_index("step")["message"]
    for step, words in {6: "damaged, truncated", 100: "not executed", 9: "but '0.weihgt' is", 101: "the model",
                        12: "NaN or Inf in '0.bias'", 3: "one checkpoint at each step"}.items():  # fmt: skip
        assert words in told[step], (step, told[step])
        assert told[step].startswith("expected ")
    assert not (tmp_path / "executed").exists()
    reference = tv.open_run(few.run).series("overtraining").set_index("step")["value"]
    assert post.series("overtraining").set_index("step")["value"].tolist() == pytest.approx(
        [reference[step] for step in (0, 3, 15, 18, 21)]
    )


def failing() -> nn.Module:
    raise RuntimeError("no such layer")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"build": failing}, r"(?s)expected a model from build=failing, got RuntimeError: no such.*raise RuntimeError"),
        ({"build": dict}, "expected a torch.nn.Module from build=dict, got dict"),
        ({"batch": None}, "expected build= and batch= together"),
        ({"batch": (torch.ones(4, 9).double(), torch.zeros(4).long())}, "expected a train batch that the model"),
        ({"what": ["los.train"]}, "did you mean loss.train"),
        ({"workers": 0}, "expected a whole number of at least 1"),
    ],
    ids=["a builder that raises", "no model", "no batch", "another batch", "unknown metric", "no workers"],
)  # fmt: skip
def test_what_is_wrong_for_all_is_an_error_at_once(changes, words, few, tmp_path):
    with pytest.raises(ValueError, match=words):
        tv.analyze(few.folder, **{**few.arguments, "store": tmp_path, "workers": 1, **changes})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_where_nothing_can_be_used_is_an_error(tmp_path):
    for step in (1, 2):
        (tmp_path / f"step_{step}.pt").write_bytes(b"not a checkpoint")
    words = r"got a damaged file or a pickle of another kind.*\(2 checkpoints, none of use\)"
    with pytest.raises(CheckpointError, match=words):
        tv.analyze(tmp_path, build=build, batch=batch(), loss=loss, store=tmp_path / "runs", workers=1)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_numbers_of_the_model_that_was_saved(name, tmp_path):
    for step in (1, 3):
        model, optimizer = trained(step)
        FORMATS[name](tmp_path, model, optimizer, step)
    what = ["loss.train", "grad.norm", "learning_rate"]
    post = tv.analyze(tmp_path, build=build, batch=batch(), loss=loss, what=what, store=tmp_path / "runs", workers=1)
    expected = tv.measure(model, batch=batch(), loss=loss, what=what)
    assert post.series("loss.train")["step"].tolist() == [1, 3]
    for metric in what[:2]:
        found = post.series(metric).query("step == 3")["value"].to_numpy()
        assert found == pytest.approx(expected[metric].value, rel=1e-12)
    if name != "safetensors":
        assert post.series("learning_rate")["value"].tolist() == [0.01, 0.01]


def test_weights_alone_give_norms_spectra_distances_and_ranks(few, tmp_path):
    post = tv.analyze(few.folder, what="full", store=tmp_path, workers=1)
    for name in ("weights.norm.value", "weights.norm.growth", "weights.norm.distance", "weights.spectral.sigma_max",
                 "weights.spectral.stable_rank", "delta.spectrum.effective_rank", "learning_rate"):  # fmt: skip
        if name in tv.open_run(few.run).names():
            left, right = tv.open_run(few.run).series(name), post.series(name)
            assert right["value"].tolist() == pytest.approx(left["value"].tolist(), rel=1e-12)
        assert post.series(name)["step"].unique().tolist()[-1] == 21, name
    assert "loss.train" not in post.names()
    assert not any("running_mean" in key for key in post.series("weights.norm.value")["key"])


def test_no_more_than_three_checkpoints_are_in_memory(few, tmp_path, monkeypatch):
    counter = CountedLoads(monkeypatch)
    tv.analyze(few.folder, **few.arguments, what=FEW, store=tmp_path, workers=1)
    tv.analyze(few.folder, what="full", store=tmp_path, workers=1)
    assert 2 <= counter.most <= 3


def test_progress_counts_up_to_the_end(few, tmp_path):
    told = []
    tv.analyze(few.folder, **few.arguments, what=["loss.train"], store=tmp_path, workers=1,
               progress=lambda *words: told.append(words))  # fmt: skip
    assert told[0] == ("analyze", 0, 8)
    assert told[-1] == ("analyze", 8, 8)


def dies_once() -> nn.Module:
    """Build the model, but end the first worker process that asks."""
    flag = Path(os.environ["DIES_ONCE"])
    if os.getpid() != int(os.environ["DIES_NOT"]) and not flag.exists():
        flag.touch()
        os._exit(9)
    return live.build_double()


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_and_its_work_done_again(few, tmp_path, monkeypatch):
    monkeypatch.setenv("DIES_ONCE", str(tmp_path / "died"))
    monkeypatch.setenv("DIES_NOT", str(os.getpid()))
    arguments = {**few.arguments, "build": dies_once}
    post = tv.analyze(few.folder, **arguments, what=["loss.train", "overtraining"], store=tmp_path, workers=2)
    assert (tmp_path / "died").exists()
    assert post.series("loss.train")["step"].tolist() == list(range(0, 24, 3))
    assert post.events().query("kind == 'checkpoint'").empty


