"""What a run records of its surroundings, and what it must not."""

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from trainvitals.probes import environment as env

SECRET = "hunter2-Zq7"


def git(folder, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


def test_the_commit_and_whether_files_differ_from_it(tmp_path):
    assert env.git_state(tmp_path) == {}
    git(tmp_path, "init", "-q")
    assert env.git_state(tmp_path) == {}  # no commit yet
    (tmp_path / "train.py").write_text("1")
    git(tmp_path, "add", "train.py")
    git(tmp_path, "commit", "-qm", "one")
    state = env.git_state(tmp_path)
    assert len(state["commit"]) == 40
    assert state["is_changed"] is False
    (tmp_path / "notes.txt").write_text("untracked files are no part of the program")
    assert env.git_state(tmp_path)["is_changed"] is False
    (tmp_path / "train.py").write_text("2")
    assert env.git_state(tmp_path)["is_changed"] is True


def test_without_git_there_is_no_commit_and_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert env.git_state(Path(__file__).parent) == {}


def test_versions_of_imported_packages_and_no_module_of_the_users():
    found = env.imported_packages()
    assert found["torch"] == torch.__version__
    assert found["numpy"] == np.__version__
    assert "json" not in found
    assert "cases" not in found


def test_the_command_is_recorded_without_its_secrets(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--lr", "0.1", "--hf-token", SECRET])
    assert env.command() == ["train.py", "--lr", "0.1", "--hf-token", "***"]


def test_the_environment_is_plain_json():
    text = json.dumps(env.environment("cpu"))
    assert json.loads(text)["torch_seed"] == torch.initial_seed()


@dataclasses.dataclass
class Inner:
    width: int = 3
    password: str = SECRET


@dataclasses.dataclass
class Settings:
    lr: float = 0.1
    inner: Inner = dataclasses.field(default_factory=Inner)


class Hostile:
    def __str__(self):
        raise RuntimeError("no")


class Talkative:
    def __repr__(self):
        return f"Client(password={SECRET})"


@pytest.mark.parametrize(
    "config",
    [
        {"db": {"password": SECRET}, "lr": 1.0},
        Settings(),
        argparse.Namespace(lr=0.1, api_key=SECRET),
        {"client": Talkative()},
        {"path": Path(f"/x/password={SECRET}")},
        {"nested": [{"token": SECRET}]},
    ],
    ids=["mapping", "dataclass", "namespace", "object", "path", "nested"],
)
def test_settings_of_every_kind_are_plain_and_hold_no_secret(config):
    assert SECRET not in json.dumps(env.plain_config(config))


def test_settings_keep_their_values_and_types():
    config = {"lr": 0.1, "n": np.int64(3), "layers": (1, 2), "flag": True, "none": None, "dtype": torch.float32,
              "nan": float("nan"), 5: "five", "hostile": Hostile(), "tensor": torch.tensor(2.5)}  # fmt: skip
    found = env.plain_config(config)
    assert found["nan"] != found["nan"]
    del found["nan"]
    assert found == {"lr": 0.1, "n": 3, "layers": [1, 2], "flag": True, "none": None, "dtype": "torch.float32",
                     "5": "five", "hostile": "<Hostile>", "tensor": 2.5}  # fmt: skip


def test_settings_that_refer_to_themselves_come_to_an_end():
    config = {"lr": 0.1}
    config["self"] = config
    assert env.plain_config(config)["self"]["self"]["lr"] == 0.1


def test_settings_that_are_none_of_these_are_refused():
    with pytest.raises(ValueError, match="expected a mapping"):
        env.plain_config([1, 2])
