"""What a framework's loader becomes as a probe: a loader of its data set that is nobody else's."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader, IterableDataset


def probe_source(loader: Any) -> Any:
    """Return a loader to draw a probe from, beside the one that training reads.

    A framework's own loaders keep state while they are iterated (random states to synchronise, worker processes
    that persist, the position in the epoch), so a plain one is made over the same data set. Anything that is no
    map-style loader of torch is given back as it is.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> fresh = probe_source(DataLoader(list(range(10)), batch_size=5, shuffle=True))
        >>> len(next(iter(fresh)))
        5
    """
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return loader
    size = loader.batch_size or getattr(loader.batch_sampler, "batch_size", None) or 32
    return DataLoader(loader.dataset, batch_size=int(size), shuffle=True, collate_fn=loader.collate_fn)


def first_loader(loaders: Any) -> Any:
    """Return the first of several loaders; None if there is none."""
    if isinstance(loaders, dict):
        loaders = list(loaders.values())
    if isinstance(loaders, (list, tuple)):
        return loaders[0] if loaders else None
    return loaders
