"""What a run keeps of its samples: pictures and tokens within bounds, or nothing where the user says so."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trainvitals as tv
from trainvitals.probes.probe_batch import probe_batch
from trainvitals.probes.sample_inputs import MAX_BYTES, MAX_SAMPLES, MAX_SIDE, MAX_TOKENS, NAME, sample_inputs


def kept(x, y=None, has_forward=False):
    y = torch.zeros(len(x), dtype=torch.long) if y is None else y
    return sample_inputs(probe_batch((x, y), argument="train", has_forward=has_forward, max_samples=10**6))


@pytest.mark.parametrize(
    ("shape", "picture"),
    [
        ((1, 8, 8), (8, 8, 1)), ((8, 8), (8, 8, 1)), ((64,), (8, 8, 1)), ((3, 5, 9), (5, 9, 3)),
        ((7, 6, 6), (6, 6, 1)), ((3, 128, 64), (64, 32, 3)),
    ],
)  # fmt: skip
def test_images_are_pictures_of_8_bit_levels(shape, picture):
    found = kept(torch.randn(5, *shape), torch.arange(5))
    details = found.details
    assert (details["height"], details["width"], details["channels"]) == picture
    assert found.value.shape == (5, np.prod(picture))
    assert found.value.dtype == np.uint8
    assert details["kind"] == "image"
    assert details["labels"].tolist() == list(range(5))
    assert found.keys == ("0", "1", "2", "3", "4")


def test_black_and_white_are_the_smallest_and_the_largest_value():
    x = torch.tensor([[[-1.0, 3.0], [1.0, torch.nan]]]).repeat(2, 1, 1)
    assert kept(x).value.tolist() == [[0, 255, 128, 0]] * 2


def test_tokens_are_kept_as_they_are():
    ids = torch.randint(1000, (4, 100))
    found = kept(ids)
    assert found.details["kind"] == "tokens"
    assert found.value.tolist() == ids[:, :MAX_TOKENS].tolist()


def test_a_mapping_of_a_language_model_gives_its_tokens():
    ids = torch.randint(9, (4, 6))
    batch = probe_batch(
        {"attention_mask": torch.ones(4, 6), "input_ids": ids, "labels": ids}, argument="train", has_forward=True,
        max_samples=9,
    )  # fmt: skip
    found = sample_inputs(batch)
    assert found.value.tolist() == ids.tolist()
    assert "labels" not in found.details


@pytest.mark.parametrize("shape", [(7,), (9,), (2, 3, 4, 5)])
def test_other_inputs_are_missing_with_the_reason(shape):
    assert "neither images nor rows of tokens" in kept(torch.randn(5, *shape)).missing


def test_what_is_kept_is_bounded():
    assert len(kept(torch.randn(MAX_SAMPLES + 9, 1, 4, 4)).value) == MAX_SAMPLES
    large = kept(torch.randn(200, 3, MAX_SIDE, MAX_SIDE)).value
    assert 0 < large.nbytes <= MAX_BYTES


@pytest.mark.parametrize(
    ("probes", "inputs", "is_kept"), [("default", True, True), ("default", False, False), ("light", True, False)]
)
def test_a_run_keeps_inputs_where_samples_are_measured_and_the_user_agrees(tmp_path, probes, inputs, is_kept):
    torch.manual_seed(0)
    model, x, y = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), torch.randn(12, 1, 4, 4), torch.arange(12) % 3
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with tv.watch(
        model, optimizer, loss=F.cross_entropy, train=(x, y), store=tmp_path, probes=probes, every=5, inputs=inputs
    ) as run:
        pass
    with tv.open_run(run.path) as read:
        assert (NAME in read.names()) == is_kept
        if is_kept:
            step, reading = read.latest()[NAME]
            assert step == 0
            assert reading.value.shape == (12, 16)
            assert reading.value.dtype == np.uint8
