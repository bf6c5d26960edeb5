"""Which checkpoints a folder holds, and at which step each stands."""

from __future__ import annotations

import pytest
import torch
from checkpoints.saved import FORMATS, trained

from trainvitals.checkpoints.errors import CheckpointError
from trainvitals.checkpoints.finding import find, step_in_name


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("step_000100", (100, None, None)), ("epoch=3-step=100", (100, None, 3)),
        ("global_step1000", (1000, None, None)),
        ("iter_0004000", (4000, None, None)), ("iteration-7", (7, None, None)), ("checkpoint-500", (None, 500, None)),
        ("ckpt_12", (None, 12, None)), ("model_epoch_4", (None, None, 4)), ("epoch12", (None, None, 12)),
        ("resnet_40", (None, 40, None)), ("resnet50", (None, None, None)), ("best", (None, None, None)),
        ("footstep", (None, None, None)), ("model.2", (None, 2, None)), ("last-v1", (None, None, None)),
    ],
)  # fmt: skip
def test_steps_are_read_from_names(name, found):
    assert step_in_name(name) == found


def test_all_formats_of_one_folder_are_found_in_the_order_of_their_steps(tmp_path):
    for step, (name, save) in enumerate(reversed(FORMATS.items()), 1):
        (tmp_path / name).mkdir()
        save(tmp_path / name, *trained(step), step)
    found = find(tmp_path)
    assert [c.step for c in found.checkpoints] == list(range(1, len(FORMATS) + 1))
    assert found.unit == "step"
    assert found.problems == ()


def test_numbers_in_names_are_sorted_by_size_and_the_file_speaks_before_its_name(tmp_path):
    for number in (2, 10, 9):
        torch.save({"model": {"w": torch.ones(1)}, "step": 100 * number}, tmp_path / f"m_{number}.pt")
    assert [c.step for c in find(tmp_path).checkpoints] == [200, 900, 1000]


def test_the_optimisers_count_is_the_last_resort_before_epochs(tmp_path):
    for num in (2, 1):
        model, optimizer = trained(num)
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / f"{'ab'[num - 1]}.pt")
    assert [(c.label, c.step) for c in find(tmp_path).checkpoints] == [("a.pt", 1), ("b.pt", 2)]


def test_epochs_and_then_places_are_the_axis_where_there_are_no_steps(tmp_path):
    for epoch in (3, 1):
        torch.save({"model": {"w": torch.ones(1)}, "epoch": epoch}, tmp_path / f"{'abcd'[epoch]}.pt")
    found = find(tmp_path)
    assert (found.unit, [c.step for c in found.checkpoints]) == ("epoch", [1, 3])
    for name in ("x10", "x9"):
        (tmp_path / "plain").mkdir(exist_ok=True)
        torch.save({"w": torch.ones(1)}, tmp_path / "plain" / f"{name}.pt")
    found = find(tmp_path / "plain")
    assert (found.unit, [(c.label, c.step) for c in found.checkpoints]) == ("place", [("x9.pt", 0), ("x10.pt", 1)])


def test_duplicates_and_checkpoints_without_a_step_are_left_out_with_the_reason(tmp_path):
    for name in ("step_5.pt", "step_05.pt", "best.pt"):
        torch.save({"w": torch.ones(1)}, tmp_path / name)
    found = find(tmp_path)
    assert [c.step for c in found.checkpoints] == [5]
    reasons = {p.label: p.reason for p in found.problems}
    assert "got step 5 of step_05.pt again in step_5.pt" in reasons["step_5.pt"]
    assert "expected a step, as the others have, got none in best.pt" in reasons["best.pt"]


def test_the_trainers_last_weights_do_not_hide_its_checkpoints(tmp_path):
    for step in (500, 1000):
        FORMATS["hugging face"](tmp_path, *trained(), step)
    torch.save({"w": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    assert [c.step for c in find(tmp_path).checkpoints] == [500, 1000]


def test_patterns_and_single_files_are_taken(tmp_path):
    for step in (1, 2, 3):
        torch.save({"w": torch.ones(1)}, tmp_path / f"step_{step}.pt")
    assert len(find(str(tmp_path / "step_[12].pt")).checkpoints) == 2
    assert len(find([tmp_path / "step_3.pt", tmp_path]).checkpoints) == 3


def test_an_empty_folder_and_a_missing_path_are_errors(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(CheckpointError, match=r"expected checkpoints, got none in .*; they are \.safetensors"):
        find(tmp_path)
    with pytest.raises(CheckpointError, match="got nothing at"):
        find(tmp_path / "absent")
