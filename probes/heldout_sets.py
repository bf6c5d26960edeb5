"""Which held-out sets the user's `heldout=` stands for: one batch, or several by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

MAIN = "heldout"  # the set of this name, or else the first, is the one that the gap is taken to


def named_sets(source: Any, train: Any) -> dict[str, Any]:
    """Return the sources of held-out sets by name; one alone is called "heldout".

    A mapping from names to batches or loaders is several sets. A mapping that holds a tensor, or has the keys of
    the train probe's own batches, is one batch as `forward=` takes it.

    Args:
        source: what the user gave, or None.
        train: a batch of the train probe.

    Raises:
        ValueError: if a mapping is empty or a name is not a text.

    >>> list(named_sets({"clean": [], "shifted": []}, train=()))
    ['clean', 'shifted']
    """
    if source is None:
        return {}
    if not isinstance(source, Mapping) or _is_batch(source, train):
        return {MAIN: source}
    wrong = next((name for name in source if not isinstance(name, str) or not name), None)
    if wrong is not None or not source:
        got = f"the name {wrong!r}" if source else "an empty mapping"
        raise ValueError(
            f"expected heldout= to be a batch, a loader, or a mapping from names to these, got {got} in heldout=; "
            "write {'clean': (x, y), 'shifted': loader}"
        )
    return dict(source)


def main_set(sets: Mapping[str, Any]) -> str | None:
    """Return the name of the set that the gap and all single held-out metrics use: "heldout", or else the first.

    >>> main_set({"shifted": 0, "heldout": 1}), main_set({"clean": 0, "shifted": 1}), main_set({})
    ('heldout', 'clean', None)
    """
    return MAIN if MAIN in sets else next(iter(sets), None)


def _is_batch(source: Mapping[Any, Any], train: Any) -> bool:
    has_keys_of_train = isinstance(train, Mapping) and set(train) == set(source)
    return has_keys_of_train or any(isinstance(value, Tensor) for value in source.values())
