"""Every format, what it may hold, and what it may not: nothing but our own error, and no pickle is executed."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from checkpoints.saved import FORMATS, Malicious, build, trained
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from trainvitals.checkpoints.errors import CheckpointError
from trainvitals.checkpoints.fitting import fit
from trainvitals.checkpoints.loaders import load
from trainvitals.checkpoints.optimizer_state import optimizer_of


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_gives_back_what_was_saved(name, tmp_path):
    model, optimizer = trained(3)
    contents = load(FORMATS[name](tmp_path, model, optimizer, 3))
    other = build()
    fit(other, contents.weights, name)
    for key, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key
    assert contents.step == (None if name in ("accelerate", "hugging face .bin") else 3)
    if name == "safetensors":
        return
    assert contents.learning_rates == (0.01,)
    assert contents.num_updates == 3
    found = optimizer_of(other, contents.optimizer)
    assert type(found) is torch.optim.AdamW
    for mine, saved in zip(other.parameters(), model.parameters(), strict=True):
        assert torch.equal(found.state[mine]["exp_avg_sq"], optimizer.state[saved]["exp_avg_sq"])


def _plant(path: Path, name: str, evil: Malicious) -> None:
    """Put the pickle wherever the format has one."""
    if name == "safetensors":  # it has no pickle: one under its name
        path.write_bytes(pickle.dumps(evil))
    elif name in ("torch", "lightning"):
        torch.save({"state_dict": {"w": torch.ones(1)}, "extra": evil}, path)
    elif name == "hugging face":
        torch.save({"state": {}, "param_groups": [evil]}, path / "optimizer.pt")
    elif name == "hugging face .bin":
        torch.save({"w": torch.ones(1), "x": evil}, path / "pytorch_model-00001-of-00002.bin")
    elif name == "accelerate":
        torch.save(evil, path / "pytorch_model.bin")
    else:
        (path / ".metadata").write_bytes(pickle.dumps(evil))


@pytest.mark.parametrize("name", FORMATS)
def test_a_malicious_pickle_is_refused_and_not_executed(name, tmp_path):
    path, trace = FORMATS[name](tmp_path, *trained(), 1), tmp_path / "executed"
    _plant(path, name, Malicious(trace))
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert not trace.exists()
    if name != "safetensors":
        assert "mkdir" in str(caught.value)
        assert "not executed" in str(caught.value)
        assert "safetensors" in str(caught.value)
    pickle.loads(pickle.dumps(Malicious(trace)))
    assert trace.exists(), "the pickle of this test does nothing"


def test_a_malicious_piece_of_a_distributed_checkpoint_is_refused(tmp_path):
    path, trace = FORMATS["torch.distributed"](tmp_path, *trained(), 1), tmp_path / "executed"
    evil = io.BytesIO()
    torch.save(Malicious(trace), evil)
    piece = evil.getvalue()
    (file,) = path.glob("*.distcp")
    whole = file.read_bytes()  # the same pickle at the beginning of every piece
    starts = [i for i in range(len(whole)) if whole.startswith(b"PK\x03\x04", i)]
    file.write_bytes(piece + whole[len(piece) :] if len(starts) and len(piece) < len(whole) else piece)
    with pytest.raises(CheckpointError):
        load(path)
    assert not trace.exists()


def test_a_whole_pickled_model_and_a_bare_pickle_are_refused(tmp_path):
    torch.save(build(), tmp_path / "model.pt")
    (tmp_path / "weights.pkl").write_bytes(pickle.dumps(Malicious(tmp_path / "executed")))
    for name in ("model.pt", "weights.pkl"):
        with pytest.raises(CheckpointError, match="was refused and not executed"):
            load(tmp_path / name)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.99])
@pytest.mark.parametrize("name", FORMATS)
def test_a_truncated_file_is_our_error(name, share, tmp_path):
    path = FORMATS[name](tmp_path, *trained(), 1)
    files = [path] if path.is_file() else [max(path.iterdir(), key=lambda file: file.stat().st_size)]
    for file in files:
        file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(CheckpointError, match=r"expected .*, got .* in .*"):
        load(path)


@pytest.mark.parametrize(
    ("saved", "words"),
    [
        ({"epoch": 3, "history": [1.0]}, "expected tensors by name"),
        ([torch.ones(2)], "got a list"),
        (torch.ones(2), "got a Tensor"),
        ({}, "an empty one"),
        ({"model": {"w": torch.ones(2).to_sparse()}}, "expected dense weights"),
        ({"model": {"w": torch.empty(2, device="meta")}}, "expected dense weights"),
    ],
    ids=["no tensors", "a list", "a tensor", "nothing", "sparse", "meta"],
)
def test_what_holds_no_weights_says_what_it_holds(saved, words, tmp_path):
    torch.save(saved, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=words):
        load(tmp_path / "x.pt")


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "module", "net", "params"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "model."])
def test_the_usual_keys_and_wrappers_are_looked_through(key, prefix, tmp_path):
    model, _ = trained()
    torch.save({key: {prefix + k: v for k, v in model.state_dict().items()}, "epoch": 4}, tmp_path / "x.pt")
    contents, other = load(tmp_path / "x.pt"), build()
    fit(other, contents.weights, "x.pt")
    assert contents.epoch == 4
    assert all(torch.equal(a, b) for a, b in zip(other.state_dict().values(), model.state_dict().values(), strict=True))


def test_an_index_that_leads_elsewhere_is_refused(tmp_path):
    folder = FORMATS["hugging face"](tmp_path, *trained(), 1)
    save_file({"w": torch.ones(1)}, tmp_path / "secret.safetensors")
    index = folder / "model.safetensors.index.json"
    for home in ("../secret.safetensors", str(tmp_path / "secret.safetensors"), "..", "absent.safetensors"):
        index.write_text(json.dumps({"weight_map": {"w": home}}))
        with pytest.raises(CheckpointError, match="expected shards beside the index"):
            load(folder)


def test_a_missing_shard_and_a_missing_piece_are_told(tmp_path):
    folder = FORMATS["hugging face"](tmp_path, *trained(), 1)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors"):
        load(folder)
    folder = FORMATS["torch.distributed"](tmp_path, *trained(), 2)
    next(folder.glob("*.distcp")).unlink()
    with pytest.raises(CheckpointError, match="expected a whole checkpoint"):
        load(folder)


# A fuzzer over all formats: bytes changed, cut, repeated or made up never raise anything but our own error.




@pytest.fixture(scope="module")
def seeds(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("seeds")
    found = {}
    for name, save in FORMATS.items():
        (folder / name.replace(" ", "_")).mkdir()
        found[name] = save(folder / name.replace(" ", "_"), *trained(), 1)
    return found


def _fuzzed(data: st.DataObject, whole: bytes) -> bytes:
    kind = data.draw(st.sampled_from(["change", "cut", "insert", "repeat", "noise"]))
    if kind == "noise":
        return data.draw(st.binary(max_size=200))
    at = data.draw(st.integers(0, max(len(whole) - 1, 0)))
    if kind == "cut":
        return whole[:at]
    if kind == "insert":
        return whole[:at] + data.draw(st.binary(min_size=1, max_size=20)) + whole[at:]
    if kind == "repeat":
        return whole[:at] + whole[max(at - 50, 0) :]
    changed = bytearray(whole)
    for place in data.draw(st.lists(st.integers(0, max(len(whole) - 1, 0)), min_size=1, max_size=8)):
        changed[place] = data.draw(st.integers(0, 255))
    return bytes(changed)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_fuzzed_checkpoints_raise_nothing_but_our_error(name, data, seeds, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / f"fuzz-{name.replace(' ', '_')}{seeds[name].suffix}"
    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    if seeds[name].is_file():
        path.write_bytes(_fuzzed(data, seeds[name].read_bytes()))
    else:
        shutil.copytree(seeds[name], path)
        file = data.draw(st.sampled_from(sorted(f.name for f in path.iterdir())))
        (path / file).write_bytes(_fuzzed(data, (path / file).read_bytes()))
    with contextlib.suppress(CheckpointError):
        fit(build(), load(path).weights, "fuzzed")


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_fuzzed_pickles_inside_a_whole_archive_raise_nothing_but_our_error(data, seeds, tmp_path_factory):
    """Zip archives are guarded by checksums: the pickle inside is changed and packed anew."""
    path = tmp_path_factory.getbasetemp() / "fuzz-inside.pt"
    with zipfile.ZipFile(seeds["torch"]) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.namelist():
            whole = old.read(entry)
            new.writestr(entry, _fuzzed(data, whole) if entry.endswith("data.pkl") else whole)
    with contextlib.suppress(CheckpointError):
        fit(build(), load(path).weights, "fuzzed")
