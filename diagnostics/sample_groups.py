"""Which group each sample of a probe belongs to, as the user names it: domains, tasks, spurious features.

Legend: N samples, K groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Missing

Groups = Sequence[int] | Sequence[str] | Tensor


def sample_groups(groups: Groups, num_samples: int, option: str, probe: str) -> tuple[Tensor, tuple[str, ...]]:
    """Return each sample's group as a place among the K names, (N,), and the names: numbers by size, texts by letters.

    Args:
        groups: a whole number or a text for each sample.
        num_samples: N.
        option: that they were given in, for the reasons.
        probe: whose samples they are, for the reasons.

    Raises:
        Missing: if there are none, or not one for each sample.

    >>> index, names = sample_groups(["water", "land", "water"], 3, "groups", "train")
    >>> index.tolist(), names
    ([1, 0, 1], ('land', 'water'))
    """
    members = members_of(groups)
    if not members:
        raise Missing(
            f"no groups were given; write {option}=[...] in its options, one number or name for each sample of the "
            f"{probe} probe"
        )
    if len(members) != num_samples:
        raise Missing(f"{option} names groups of {len(members)} samples, the {probe} probe has {num_samples}")
    order = sorted(set(members), key=lambda group: (isinstance(group, str), group))
    places = {group: place for place, group in enumerate(order)}
    return torch.tensor([places[group] for group in members]), tuple(str(group) for group in order)


def members_of(groups: Groups) -> list[int | str]:
    """Return the groups as plain numbers and texts.

    >>> members_of(torch.tensor([2, 0]))
    [2, 0]
    """
    given: Any = groups  # NumPy's arrays give plain numbers as tensors do
    return list(given.tolist() if hasattr(given, "tolist") else given)


def check_groups(groups: Groups, option: str, name: str) -> None:
    """Refuse groups that are not whole numbers or texts, one for each sample.

    Raises:
        ValueError: with the first one that is neither.
    """
    is_list = hasattr(groups, "__len__") and not isinstance(groups, str) and getattr(groups, "ndim", 1) == 1
    members = members_of(groups) if is_list else []
    wrong = [m for m in members if isinstance(m, bool) or not isinstance(m, (int, str))] if is_list else [groups]
    if wrong:
        raise ValueError(
            f"expected a whole number or a name for each sample, got {str(wrong[0])[:40]} in {option}= of the options "
            f"of {name!r}; give a list or a tensor of shape (N,), in the order of the probe's samples"
        )
