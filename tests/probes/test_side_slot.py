"""Shared memory: what is written by one process is read by another, bit for bit, as often as one likes."""

from __future__ import annotations

import os

import pytest
import torch

from trainvitals.probes.side_slot import Slot

CPU = torch.device("cpu")
TENSORS = {
    "float32": torch.randn(3, 5, generator=torch.Generator().manual_seed(0)),
    "bfloat16": torch.arange(7).bfloat16(),
    "float64": torch.tensor(3.5, dtype=torch.float64),
    "int64": torch.tensor([2**62, -1]),
    "bool": torch.tensor([True, False, True]),
    "complex64": torch.tensor([1 + 2j]),
    "uint8": torch.arange(5, dtype=torch.uint8),
    "empty": torch.zeros(0, 3),
    "special": torch.tensor([float("nan"), -0.0, float("-inf")]),
}


@pytest.fixture
def ends():
    ours = Slot()
    theirs = Slot(os.dup(ours.descriptor))
    yield ours, theirs
    ours.close(), theirs.close()


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def test_tensors_of_every_type_arrive_bit_for_bit(ends):
    ours, theirs = ends
    body, found = theirs.read(ours.write(b"structure", list(TENSORS.values())), CPU)
    assert body == b"structure"
    for (name, sent), got in zip(TENSORS.items(), found, strict=True):
        assert (got.dtype, got.shape) == (sent.dtype, sent.shape), name
        assert bits(got) == bits(sent), name


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last), torch.randn(4, 6).T,
        torch.randn(8, 8)[::2, 1:5], torch.randn(3, 1).expand(3, 4),
    ],
    ids=["channels_last", "transposed", "strided", "expanded"],
)  # fmt: skip
def test_the_order_in_memory_is_that_of_a_clone(ends, tensor):
    ours, theirs = ends
    _, (found,) = theirs.read(ours.write(b"", [tensor]), CPU)
    assert torch.equal(found, tensor)
    assert found.stride() == tensor.clone().stride()


def test_a_slot_is_used_again_for_snapshots_of_any_size(ends):
    ours, theirs = ends
    copies = []
    for size in (10, 10, 5000, 3, 100_000, 10):
        tensor = torch.full((size,), float(size))
        copies.append((size, theirs.read(ours.write(b"x" * size, [tensor, tensor[:1]]), CPU)))
    for size, (body, (whole, first)) in copies:  # what was read is a copy: later snapshots leave it alone
        assert len(body) == size
        assert torch.equal(whole, torch.full((size,), float(size)))
        assert first.item() == size


def test_what_changes_between_two_snapshots_of_one_layout_is_seen(ends):
    ours, theirs = ends
    weight = torch.zeros(1000)
    for value in range(3):
        weight.fill_(value)
        _, (found,) = theirs.read(ours.write(b"", [weight]), CPU)
        assert torch.equal(found, weight)


def test_training_is_not_touched_by_a_copy_of_what_has_a_graph(ends):
    ours, theirs = ends
    weight = torch.nn.Parameter(torch.ones(3))
    version = weight._version
    _, (found,) = theirs.read(ours.write(b"", [weight * 2]), CPU)
    assert weight._version == version
    assert found.tolist() == [2.0] * 3


def test_without_memory_it_is_an_error_and_no_signal(ends, monkeypatch):
    ours, theirs = ends
    ours.write(b"", [torch.ones(10)])
    if not hasattr(os, "posix_fallocate"):
        pytest.skip("this system cannot reserve memory")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(OSError, match="No space"):
            ours.write(b"", [torch.ones(100_000)])
    _, (found,) = theirs.read(ours.write(b"", [torch.ones(100_000)]), CPU)
    assert found.sum() == 100_000


def test_nothing_is_left_in_the_file_system():
    if not hasattr(os, "memfd_create"):
        pytest.skip("memory without a name is Linux's")
    slot = Slot()
    slot.write(b"", [torch.ones(1000)])
    assert os.readlink(f"/proc/self/fd/{slot.descriptor}").startswith("/memfd:")
    slot.close()
    slot.close()  # a second time does nothing
