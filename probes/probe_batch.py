"""The fixed samples on which a run is measured: drawn once, copied, hashed, and never drawn again.

Legend: N samples of the probe, n samples of one chunk.
"""

from __future__ import annotations

import hashlib
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten
from torch.utils.data import DataLoader, IterableDataset, RandomSampler

from trainvitals.probes.bystander import preserving_random_state, seed_random_state

_TARGET_NAMES = ("labels", "label", "targets", "target", "y")
_MASK_NAME = "attention_mask"
_LOADER_SEED = 0


@dataclass(frozen=True)
class ProbeBatch:
    """Samples in chunks, each a batch as the user's loop has it: (inputs, targets), or what `forward=` takes."""

    chunks: tuple[Any, ...]
    sizes: tuple[int, ...]  # n of each chunk
    num_terms: tuple[float, ...] | None = None  # loss terms that each chunk's mean is over; None: its samples

    @property
    def num_samples(self) -> int:
        """The number of samples N."""
        return sum(self.sizes)

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of loss terms in each chunk: the weights of averages over chunks (see `loss_terms`)."""
        weights = self.sizes if self.num_terms is None else self.num_terms
        return tuple(weight / sum(weights) for weight in weights)

    @cached_property
    def hash(self) -> str:
        """Twelve hex digits that name these samples, for provenance."""
        digest = hashlib.sha256()
        for leaf in tree_leaves(self.chunks):
            if isinstance(leaf, Tensor):
                digest.update(str((leaf.dtype, tuple(leaf.shape))).encode())
                digest.update(leaf.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:12]

    @cached_property
    def targets(self) -> Tensor | None:
        """Targets of all samples (N, ...), or None where they cannot be found or joined."""
        return self._joined([targets_of(chunk) for chunk in self.chunks])

    @cached_property
    def mask(self) -> Tensor | None:
        """True for tokens that are no padding, (N, T), where batches say so as Hugging Face's do."""
        found = [chunk.get(_MASK_NAME) if isinstance(chunk, Mapping) else None for chunk in self.chunks]
        tensors = [mask if isinstance(mask, Tensor) and mask.ndim == 2 else None for mask in found]
        joined_masks = self._joined(tensors)
        return None if joined_masks is None else joined_masks != 0

    def _joined(self, found: Sequence[Tensor | None]) -> Tensor | None:
        """Return what chunks hold as one (N, ...), or None where one has no row a sample or they differ in shape."""
        tensors = [t for t, n in zip(found, self.sizes, strict=True) if t is not None and t.ndim and len(t) == n]
        if len(tensors) != len(found) or len({t.shape[1:] for t in tensors}) != 1:
            return None
        return torch.cat(tensors)

    def on(self, device: torch.device) -> ProbeBatch:
        """Return the same samples on a device."""
        chunks = tree_map(lambda t: t.to(device) if isinstance(t, Tensor) else t, self.chunks)
        return replace(self, chunks=chunks)


def targets_of(batch: Any) -> Tensor | None:
    """Return a batch's targets: the second of a pair, or the entry of a mapping named like labels."""
    if isinstance(batch, Mapping):
        batch = next((batch[name] for name in _TARGET_NAMES if name in batch), None)
    elif isinstance(batch, (tuple, list)):
        batch = batch[-1] if len(batch) > 1 else None
    else:
        batch = None
    return batch if isinstance(batch, Tensor) else None


def probe_batch(source: Any, *, argument: str, has_forward: bool, max_samples: int) -> ProbeBatch:
    """Return the probe batch that the user's `train=` or `heldout=` stands for.

    A pair of tensors (or, with `forward=`, a mapping or a tuple of tensors) is one batch and is taken
    whole; a list of batches is taken whole, chunk by chunk; of a loader the first `max_samples` samples
    of one shuffled pass are drawn, with all random states put back.

    Raises:
        ValueError: for an iterator (drawing would take the run's own samples), a loader that gives
            nothing, batches without a common number of samples, or anything else.
    """
    if _is_batch(source, has_forward):
        chunks = [source]
    elif isinstance(source, list):
        chunks = source
    elif isinstance(source, Iterable):
        if isinstance(source, Iterator):
            raise ValueError(
                f"expected {argument}= to be tensors or a loader that can be iterated again, got the iterator "
                f"{type(source).__name__}; drawing from it would take samples away from training: pass the loader"
            )
        chunks = merged(_drawn(source, max_samples))
    else:
        raise ValueError(
            f"expected {argument}=(inputs, targets), a list of such batches or a loader, got "
            f"{type(source).__name__}; for other batches pass forward= as well"
        )
    if not chunks:
        raise ValueError(
            f"expected {argument}= to give at least one batch, it gave none; "
            "is the loader's dataset empty?"
        )
    chunks = [_plain(chunk) for chunk in chunks]
    for chunk in chunks:
        if not _is_batch(chunk, has_forward):
            raise ValueError(
                f"expected batches (inputs, targets) of tensors in {argument}=, got {_outline(chunk)}; "
                "for other batches pass forward=, a function of (model, batch) that returns (outputs, loss)"
            )
    sizes = tuple(_num_samples(chunk, argument) for chunk in chunks)
    copies = tree_map(lambda t: t.detach().clone() if isinstance(t, Tensor) else t, tuple(chunks))
    return ProbeBatch(copies, sizes)


def _is_batch(source: Any, has_forward: bool) -> bool:
    if has_forward:
        is_one = isinstance(source, (tuple, Mapping, Tensor))
        return is_one and any(isinstance(leaf, Tensor) for leaf in tree_leaves(_plain(source)))
    return isinstance(source, (tuple, list)) and len(source) == 2 and all(isinstance(t, Tensor) for t in source)


def _num_samples(batch: Any, argument: str) -> int:
    """Return the length of the first tensor's first dimension, after checking targets against it."""
    tensors = [t for t in tree_leaves(batch) if isinstance(t, Tensor) and t.ndim > 0]
    if not tensors or len(tensors[0]) == 0:
        raise ValueError(
            f"expected samples along the first dimension in {argument}=, got {_outline(batch)}; "
            "pass a batch, not one sample"
        )
    size, targets = len(tensors[0]), targets_of(batch)
    if targets is not None and targets.ndim > 0 and len(targets) != size:
        raise ValueError(
            f"expected as many targets as inputs in {argument}=, got {size} inputs and {len(targets)} targets; "
            "was one of them drawn from another split?"
        )
    return size


def _outline(batch: Any) -> str:
    if isinstance(batch, Tensor):
        return f"a tensor of shape {tuple(batch.shape)}"
    if isinstance(batch, (tuple, list)):
        return f"{type(batch).__name__}({', '.join(_outline(part) for part in batch[:4])})"
    return type(batch).__name__


def _drawn(loader: Iterable[Any], max_samples: int) -> list[Any]:
    """Draw batches without leaving a trace in the loader, its dataset or any random state."""
    holders = list(_holders(loader))
    put_back = preserving_random_state(holders)
    attributes = [(vars(value), dict(vars(value))) for value in holders if _is_walked(value)]
    try:
        seed_random_state(_LOADER_SEED)
        chunks: list[Any] = []
        left = max_samples
        for batch in map(_plain, _bystanding(loader)):
            size = next((len(t) for t in tree_leaves(batch) if isinstance(t, Tensor) and t.ndim), 0)
            chunks.append(first_samples(batch, left, size) if size > left else batch)
            left -= size
            if left <= 0:
                break
        return chunks
    finally:
        put_back()
        for now, before in attributes:  # an epoch counted, workers kept for the next pass
            if len(now) != len(before) or any(now.get(name, now) is not value for name, value in before.items()):
                now.clear()
                now.update(before)


def _bystanding(loader: Iterable[Any]) -> Iterable[Any]:
    """Return a loader over the same dataset in this process, with an order of its own.

    The user's `iter(loader)` would draw from its generator, advance its sampler, and with persistent
    workers start the very processes whose random state training is about to use.
    """
    if not isinstance(loader, DataLoader):
        return loader
    order = torch.Generator().manual_seed(_LOADER_SEED)
    if isinstance(loader.dataset, IterableDataset):
        how: dict[str, Any] = {"batch_size": loader.batch_size}
    elif loader.batch_size is not None:
        if len(loader.dataset) == 0:  # pyright: ignore[reportArgumentType]
            return []
        sampler = RandomSampler(loader.dataset, generator=order)  # pyright: ignore[reportArgumentType]
        how = {"batch_size": loader.batch_size, "sampler": sampler}
    elif loader.batch_sampler is not None:
        how = {"batch_sampler": loader.batch_sampler}
    else:  # the data set gives whole batches
        how = {"batch_size": None, "sampler": loader.sampler}
    return DataLoader(loader.dataset, collate_fn=loader.collate_fn, generator=order, **how)


def _holders(loader: Any) -> Iterator[Any]:
    """Yield what may hold random generators: attributes of the loader, its samplers, dataset and transforms."""
    seen: set[int] = set()
    queue: list[tuple[Any, int]] = [(loader, 0)]
    while queue:
        value, depth = queue.pop()
        if id(value) in seen or depth > 6:
            continue
        seen.add(id(value))
        yield value
        if isinstance(value, (list, tuple, dict)) and len(value) <= 64:
            queue += [(part, depth + 1) for part in (value.values() if isinstance(value, dict) else value)]
        elif _is_walked(value):
            queue += [(part, depth + 1) for part in vars(value).values()]


def _is_walked(value: Any) -> bool:
    return isinstance(getattr(value, "__dict__", None), dict) and not isinstance(
        value, (type, types.ModuleType, types.FunctionType, torch.nn.Module)
    )


def first_samples(batch: Any, count: int, size: int) -> Any:
    """Return the first `count` samples of a batch of `size`, or the last ones if `count` is negative."""
    picked = slice(count) if count >= 0 else slice(count, None)
    return tree_map(lambda t: t[picked] if isinstance(t, Tensor) and t.ndim and len(t) == size else t, batch)


def joined(chunks: Sequence[Any], sizes: Sequence[int]) -> Any:
    """Return batches as one.

    Raises:
        ValueError: if they are built differently, or differ in a part that is no tensor along the samples.
        RuntimeError: if tensors along the samples differ in shape.
    """
    if len(chunks) == 1:
        return chunks[0]

    def joined_leaf(*leaves: Any) -> Any:
        if all(isinstance(t, Tensor) and t.ndim and len(t) == n for t, n in zip(leaves, sizes, strict=True)):
            return torch.cat(leaves)
        if any(isinstance(leaf, Tensor) for leaf in leaves):
            raise ValueError("a tensor that is not along the samples")
        if any(type(leaf) is not type(leaves[0]) or leaf != leaves[0] for leaf in leaves[1:]):
            raise ValueError(f"a {type(leaves[0]).__name__} that differs between batches")
        return leaves[0]

    return tree_map(joined_leaf, *chunks)


def merged(chunks: list[Any]) -> list[Any]:
    """Join batches into one where the shapes allow it: one pass is cheaper than several."""
    leaves = [tree_leaves(chunk) for chunk in chunks]
    columns = list(zip(*leaves, strict=False))
    fits = len({len(row) for row in leaves}) == 1 and all(
        all(isinstance(t, Tensor) and t.ndim for t in column) and len({t.shape[1:] for t in column}) == 1
        for column in columns
    )
    if len(chunks) < 2 or not fits:
        return chunks
    return [tree_unflatten([torch.cat(column) for column in columns], tree_flatten(chunks[0])[1])]


def _plain(batch: Any) -> Any:
    """Return a batch as a tuple or dict: loaders give lists, tokenizers mappings of their own."""
    if isinstance(batch, Mapping):
        return dict(batch)
    return tuple(batch) if isinstance(batch, list) else batch
