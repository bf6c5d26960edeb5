"""Metrics of paths against brute force: all checkpoints in memory, dense float64."""

from __future__ import annotations

import copy
import shutil

import numpy as np
import pytest
import torch
from checkpoints import live_training as live
from checkpoints.counted_loads import CountedLoads
from checkpoints.saved import build, trained
from torch import nn

import trainvitals as tv
from trainvitals.diagnostics.cka import linear_cka

NUM = 7


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> live.Trained:
    return live.train(tmp_path_factory.mktemp("path"), ["loss.train"], NUM)


@pytest.fixture(scope="module")
def run(path, tmp_path_factory) -> tv.Run:
    store = tmp_path_factory.mktemp("runs")
    return tv.analyze(path.folder, **path.arguments, what=["path"], store=store, workers=1)


def states(path: live.Trained) -> dict[int, dict[str, torch.Tensor]]:
    return {3 * i: torch.load(path.folder / f"step_{3 * i}.pt", weights_only=True)["model"] for i in range(NUM)}


def vectors(path: live.Trained) -> np.ndarray:
    names = [name for name, _ in live.build_double().named_parameters()]
    return np.stack([torch.cat([s[n].flatten() for n in names]).numpy() for s in states(path).values()])


def matrix(run: tv.Run, name: str) -> np.ndarray:
    values = run.series(name)["value"].to_numpy()
    side = round(len(values) ** 0.5)
    return values.reshape(side, side)


def loss_there(state: dict[str, torch.Tensor], probe: str = "batch") -> float:
    """Return the loss at weights, BatchNorm's statistics those of the whole train probe."""
    model, given = live.build_double(), live.probes()
    model.load_state_dict(state)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.reset_running_stats()
            layer.momentum = None
            layer.train()
    model(given["batch"][0])
    x, y = given[probe]
    return live.loss(model.eval()(x), y).item()


def between(a, b, share: float):
    return {k: (1 - share) * a[k] + share * b[k] if a[k].is_floating_point() else a[k] for k in a}


def test_components_are_those_of_the_centred_weights(path, run):
    X = vectors(path) - vectors(path).mean(0)
    U, S, _ = np.linalg.svd(X, full_matrices=False)
    expected = U[:, :3] * S[:3]
    found = run.series("path.pca.coordinates").pivot(index="step", columns="key", values="value").to_numpy()
    assert np.abs(found) == pytest.approx(np.abs(expected), abs=1e-9)
    assert (found[-1] >= 0).all()
    shares = run.series("path.pca.explained")["value"].to_numpy()
    assert shares == pytest.approx((S**2 / (S**2).sum())[: len(shares)], abs=1e-12)
    assert shares.sum() == pytest.approx(1.0)


def test_distances_and_angles_are_those_of_the_weights(path, run):
    X = vectors(path)
    D = np.linalg.norm(X[:, None] - X[None], axis=-1)
    assert matrix(run, "path.distance.between") == pytest.approx(D, rel=1e-12)
    assert run.series("path.distance.initial")["value"].to_numpy() == pytest.approx(D[0], rel=1e-12)
    assert run.series("path.distance.final")["value"].to_numpy() == pytest.approx(D[-1], rel=1e-12)
    assert run.series("path.distance.previous")["value"].to_numpy() == pytest.approx(np.diag(D, 1), rel=1e-12)
    N = X / np.linalg.norm(X, axis=1, keepdims=True)
    angles = np.degrees(np.arccos(np.clip(N @ N.T, -1, 1)))
    np.fill_diagonal(angles, 0)
    assert matrix(run, "path.angle.between") == pytest.approx(angles, abs=1e-5)
    steps = np.diff(X, axis=0)
    steps /= np.linalg.norm(steps, axis=1, keepdims=True)
    turns = np.degrees(np.arccos((steps[1:] * steps[:-1]).sum(1)))
    assert run.series("path.angle.turn")["value"].to_numpy() == pytest.approx(turns, abs=1e-6)


def test_barriers_are_those_of_every_point_of_the_line(path, run):
    saved = states(path)
    shares = np.linspace(0, 1, 11)
    for probe, suffix in (("batch", ""), ("heldout", "_heldout")):
        curves = run.series(f"path.barrier.curve{suffix}").set_index("step")["value"]
        heights = run.series(f"path.barrier.height{suffix}").set_index("step")["value"]
        for a, b in ((0, 3), (15, 18)):
            expected = np.array([loss_there(between(saved[a], saved[b], share), probe) for share in shares])
            assert curves[b].to_numpy() == pytest.approx(expected, rel=1e-9)
            straight = (1 - shares) * expected[0] + shares * expected[-1]
            assert heights[b] == pytest.approx((expected - straight).max(), abs=1e-10)
    assert run.series("path.barrier.height")["step"].tolist() == list(range(3, 21, 3))
    ends = run.series("path.barrier.ends.curve")["value"].to_numpy()
    assert ends[5] == pytest.approx(loss_there(between(saved[0], saved[18], 0.5)), rel=1e-9)


def test_a_barrier_without_new_statistics_would_be_another(path):
    a, b = states(path)[0], states(path)[18]
    model = live.build_double()
    model.load_state_dict(between(a, b, 0.5))
    x, y = live.probes()["batch"]
    assert live.loss(model.eval()(x), y).item() != pytest.approx(loss_there(between(a, b, 0.5)), rel=1e-3)


def test_the_soup_is_the_mean_of_the_last_five(path, run):
    saved = list(states(path).values())
    mean = {k: torch.stack([s[k].double() for s in saved[-5:]]).mean(0) for k in saved[0]}
    expected = loss_there({k: v.to(saved[0][k].dtype) for k, v in mean.items()}, "heldout")
    assert run.series("path.soup.loss")["value"].iloc[-1] == pytest.approx(expected, rel=1e-9)
    x, y = live.probes()["heldout"]
    members = []
    for state in saved[-5:]:
        model = live.build_double()
        model.load_state_dict(state)
        members.append(live.loss(model.eval()(x), y).item())
    assert run.series("path.soup.gain")["value"].iloc[-1] == pytest.approx(min(members) - expected, rel=1e-9)
    assert run.series("path.soup.loss")["step"].tolist() == list(range(3, 21, 3))


def test_similarities_are_those_of_the_features(path, run):
    features = []
    for state in states(path).values():
        model = live.build_double()
        model.load_state_dict(state)
        features.append(model.eval()[:-1](live.probes()["batch"][0]).detach())
    expected = np.array([[linear_cka(a, b) for a in features] for b in features])
    assert matrix(run, "path.cka.between") == pytest.approx(expected, abs=1e-12)


def test_the_surface_is_the_loss_on_the_plane_of_the_components(path, run):
    step, reading = run.latest()["path.landscape"]
    assert step == 18
    assert reading.value.shape == (15, 15)
    X = vectors(path)
    mean = X.mean(0)
    _, _, V = np.linalg.svd(X - mean, full_matrices=False)
    coordinates = run.series("path.pca.coordinates").pivot(index="step", columns="key", values="value").to_numpy()
    V = V[:2] * np.sign(((X[-1] - mean) @ V[:2].T) * coordinates[-1, :2])[:, None]
    for i, j in ((0, 0), (7, 3), (14, 14)):
        point = mean + reading.details["x"][j] * V[0] + reading.details["y"][i] * V[1]
        state, at = dict(states(path)[0]), 0
        for name, parameter in live.build_double().named_parameters():
            state[name] = torch.from_numpy(point[at : at + parameter.numel()]).reshape(parameter.shape)
            at += parameter.numel()
        assert reading.value[i, j] == pytest.approx(loss_there(state), rel=1e-7)
    for k in (0, 1):  # the path is inside
        low, high = (reading.details["xy"[k]][end] for end in (0, -1))
        assert low < coordinates[:, k].min()
        assert coordinates[:, k].max() < high
    assert 0 < reading.details["variance_in_plane"] <= 1


def test_two_runs_are_compared_at_the_steps_that_both_have(path, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    generator = torch.Generator().manual_seed(0)
    saved = states(path)
    for step in (3, 18, 99):
        state = copy.deepcopy(saved[min(step, 18)])
        for name, tensor in state.items():
            if tensor.is_floating_point() and "running" not in name:
                tensor += 0.3 * torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
        torch.save(state, other / f"step_{step}.pt")
    found = tv.analyze(path.folder, **path.arguments, what=[], against=other, store=tmp_path / "runs", workers=1)
    assert found.series("path.against.height")["step"].tolist() == [3, 18]
    b = torch.load(other / "step_18.pt", weights_only=True)
    names = [name for name, _ in live.build_double().named_parameters()]
    left, right = (torch.cat([s[n].flatten() for n in names]) for s in (saved[18], b))
    assert found.series("path.against.distance")["value"].iloc[-1] == pytest.approx(float((left - right).norm()))
    cosine = float(left @ right / left.norm() / right.norm())
    assert found.series("path.against.angle")["value"].iloc[-1] == pytest.approx(np.degrees(np.arccos(cosine)))
    expected = [loss_there(between(saved[18], b, share)) for share in np.linspace(0, 1, 11)]
    assert found.series("path.against.curve").query("step == 18")["value"].tolist() == pytest.approx(expected)
    assert -1 < found.series("path.against.cka")["value"].iloc[-1] < 1


def test_a_filter_normalised_landscape_goes_around_any_checkpoint(path, tmp_path):
    options = {"landscape": {"num_points": 5}}
    post = tv.analyze(path.folder / "step_9.pt", **path.arguments, what=options, store=tmp_path, workers=1)
    model = live.build_double()
    model.load_state_dict(states(path)[9])
    expected = tv.measure(model, **live.probes(), loss=live.loss, what=options)["landscape"].value
    assert post.series("landscape")["value"].to_numpy() == pytest.approx(expected, rel=1e-12)
    assert post.series("landscape")["step"].unique().tolist() == [9]


def test_weights_alone_give_the_path_and_a_barrier_needs_a_model(path, run, tmp_path):
    post = tv.analyze(path.folder, what=["path"], store=tmp_path, workers=1)
    assert matrix(post, "path.distance.between") == pytest.approx(matrix(run, "path.distance.between"), rel=1e-12)
    assert not any(name.startswith(("path.barrier", "path.soup", "path.cka")) for name in post.names())
    with pytest.raises(ValueError, match=r"expected build= and batch= for 'path\.barrier'"):
        tv.analyze(path.folder, what=["path.barrier"], store=tmp_path)
    with pytest.raises(ValueError, match=r"did you mean path\.barrier"):
        tv.analyze(path.folder, **path.arguments, what=["path.barier"], store=tmp_path)
    with pytest.raises(ValueError, match=r"expected options of 'path\.soup'"):
        tv.analyze(path.folder, **path.arguments, what={"path.soup": {"k": 3}}, store=tmp_path)


def test_a_damaged_checkpoint_is_left_out_of_the_path(path, tmp_path):
    folder = tmp_path / "some"
    shutil.copytree(path.folder, folder)
    (folder / "step_9.pt").write_bytes(b"")
    post = tv.analyze(folder, **path.arguments, what=["path.pca", "path.barrier"], store=tmp_path / "r", workers=1)
    steps = [0, 3, 6, 12, 15, 18]
    assert post.series("path.pca.coordinates")["step"].unique().tolist() == steps
    assert post.series("path.barrier.height")["step"].tolist() == steps[1:]
    assert post.status == "finished"


def test_one_checkpoint_and_weights_that_never_move_have_no_path(tmp_path):
    for step in (0, 5):
        torch.save(trained(1)[0].state_dict(), tmp_path / f"step_{step}.pt")
    post = tv.analyze(tmp_path, what=["path"], store=tmp_path / "runs", workers=1)
    assert post.missing("path.pca.explained")["reason"].tolist() == ["all checkpoints have the same weights"]
    assert post.series("path.distance.previous")["value"].tolist() == [0.0]


def test_no_more_than_three_checkpoints_are_in_memory(path, tmp_path, monkeypatch):
    counter = CountedLoads(monkeypatch)
    tv.analyze(path.folder, **path.arguments, what=["weights.norm", "path"], store=tmp_path, workers=1)
    assert 2 <= counter.most <= 3


def test_a_model_without_batchnorm_and_any_format_will_do(tmp_path):
    from checkpoints.saved import FORMATS, batch, loss

    for step in (1, 2, 3):
        FORMATS["hugging face"](tmp_path, *trained(step), step)
    post = tv.analyze(tmp_path, build=build, batch=batch(), loss=loss, what=["path.barrier", "path.pca"],
                      store=tmp_path / "runs", workers=1)  # fmt: skip
    assert post.series("path.barrier.height")["value"].min() >= 0
