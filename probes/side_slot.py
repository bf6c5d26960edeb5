"""Memory that two processes share: the trainer copies a model into it, the other one copies it out.

On Linux it is memory without a name (`memfd_create`), which no limit on /dev/shm binds and no kill leaves behind;
elsewhere a temporary file that is deleted when both processes have ended.

Layout: tensors first, each at a multiple of 64 bytes, then what is pickled. Where the tensors of a snapshot are
built like those of the last, copying is all that is done.
"""

from __future__ import annotations

import mmap
import os
import pickle
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_ALIGNMENT = 64  # bytes; that of torch's own allocations
_SPARE = 1.25  # room for what is pickled to grow before memory is mapped anew


@dataclass(frozen=True)
class Place:
    """Where one tensor stands in a slot, and how it is built."""

    offset: int
    num_bytes: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype
    device_type: str  # where it is in the trainer


@dataclass(frozen=True)
class Message:
    """What the other process has to be told to read a slot."""

    num_bytes: int  # of the whole slot
    start: int  # of what is pickled
    stop: int


class Slot:
    """One piece of shared memory, reused for snapshot after snapshot. It grows and never shrinks.

    Args:
        descriptor: of a file that both processes have open; a new one if left out.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = _new_file() if descriptor is None else descriptor
        self._memory = torch.empty(0, dtype=torch.uint8, device="cpu")
        self._places: list[Place] = []
        self._views: list[Tensor] = []

    def write(self, body: bytes, tensors: Sequence[Tensor]) -> Message:
        """Copy tensors and bytes in, and return what the reader has to be told.

        Raises:
            OSError: if there is no memory for them.
        """
        places = _places_of(tensors)
        start = _aligned(places[-1].offset + places[-1].num_bytes) if places else 0
        pickled = pickle.dumps((places, body), pickle.HIGHEST_PROTOCOL)
        stop = start + len(pickled)
        if stop > len(self._memory):
            self._grow(int(start + _SPARE * len(pickled)))
        if places != self._places or not self._views:
            self._places, self._views = places, [_view(self._memory, place) for place in places]
        with torch.no_grad():
            if tensors:
                sources = [t.detach() for t in tensors]
                torch._foreach_copy_(self._views, sources)  # pyright: ignore[reportPrivateImportUsage]
            self._memory[start:stop] = torch.from_numpy(np.frombuffer(bytearray(pickled), np.uint8))
        return Message(len(self._memory), start, stop)

    def read(self, message: Message, device: torch.device) -> tuple[bytes, list[Tensor]]:
        """Return bytes and tensors as copies: the slot is free again. What was on an accelerator goes to `device`."""
        if message.num_bytes > len(self._memory):
            self._map(message.num_bytes)
        places, body = pickle.loads(self._memory[message.start : message.stop].numpy().tobytes())
        return body, [self._copied(place, device) for place in places]

    def close(self) -> None:
        """Let the memory go; it is freed when the other process has done so too."""
        self._views, self._places = [], []
        self._memory = self._memory.new_empty(0)
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _copied(self, place: Place, device: torch.device) -> Tensor:
        view = _view(self._memory, place)
        where = torch.device("cpu") if place.device_type == "cpu" else device
        return torch.empty_strided(place.shape, place.strides, dtype=place.dtype, device=where).copy_(view)

    def _grow(self, num_bytes: int) -> None:
        """Reserve memory now: what is only mapped would kill the trainer when there is none left to write to."""
        self._views, self._places = [], []
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self.descriptor, 0, num_bytes)
        else:
            _fill(self.descriptor, len(self._memory), num_bytes)
        self._map(num_bytes)

    def _map(self, num_bytes: int) -> None:
        self._views, self._places = [], []
        self._memory = torch.from_numpy(np.frombuffer(mmap.mmap(self.descriptor, num_bytes), np.uint8))


def _new_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("trainvitals")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _fill(descriptor: int, start: int, stop: int) -> None:
    os.lseek(descriptor, start, os.SEEK_SET)
    while start < stop:
        start += os.write(descriptor, bytes(min(stop - start, 2**20)))


def _places_of(tensors: Sequence[Tensor]) -> list[Place]:
    places, offset = [], 0
    for t in tensors:
        place = Place(offset, t.numel() * t.element_size(), tuple(t.shape), _strides(t), t.dtype, t.device.type)
        places.append(place)
        offset = _aligned(offset + place.num_bytes)
    return places


def _strides(tensor: Tensor) -> tuple[int, ...]:
    """Return the strides of a copy: its own where it has no gaps, for kernels add in the order of memory."""
    return tensor.stride() if tensor.is_contiguous() else torch.empty_like(tensor, device="meta").stride()


def _view(memory: Tensor, place: Place) -> Tensor:
    part = memory[place.offset : place.offset + place.num_bytes].view(place.dtype)
    return part.as_strided(place.shape, place.strides)


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT

