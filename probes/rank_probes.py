"""The probe batches of all ranks as one: what each rank gave, in the order of the ranks, held by every rank.

Legend: R ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch.utils._pytree import tree_map

from trainvitals.diagnostics.base import Missing
from trainvitals.probes.bystander import bystander
from trainvitals.probes.heldout_sets import named_sets
from trainvitals.probes.micro_batches import micro_batches
from trainvitals.probes.probe_batch import ProbeBatch, merged, probe_batch
from trainvitals.probes.ranks import Ranks
from trainvitals.probes.subject import Subject

_CPU = torch.device("cpu")


def gathered_probes(
    ranks: Ranks, train: Any, heldout: Any, *, has_forward: bool, max_samples: int, device: torch.device = _CPU
) -> tuple[list[Any], Any]:
    """Return the train and the held-out probe of all ranks, as `train=` and `heldout=` take them.

    Ranks that all gave the same samples gave them once. All ranks get the same batches, on `device`, or the same error.

    Raises:
        ValueError: if a rank's probe is none, on every rank, with that rank's reason.
    """
    mine: tuple[str | None, ProbeBatch | None, dict[str, ProbeBatch]]
    try:
        own = _batch(train, "train", has_forward, max_samples)
        sets = named_sets(heldout, own.chunks[0])
        mine = None, own, {name: _batch(given, "heldout", has_forward, max_samples) for name, given in sets.items()}
    except Exception as error:
        mine = f"{error}", None, {}
    found = ranks.gathered(mine)
    for number, (problem, _, _) in enumerate(found):
        if problem is not None:
            raise ValueError(f"expected a probe batch from every rank, got on rank {ranks.members[number]}: {problem}")
    names = list(dict.fromkeys(name for _, _, sets in found for name in sets))
    whole = {name: together([sets[name] for _, _, sets in found if name in sets]) for name in names}
    joined = together([batch for _, batch, _ in found if batch is not None]), whole or None
    return tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, torch.Tensor) else leaf, joined)


def _batch(source: Any, argument: str, has_forward: bool, max_samples: int) -> ProbeBatch:
    return probe_batch(source, argument=argument, has_forward=has_forward, max_samples=max_samples).on(_CPU)


def together(batches: Sequence[ProbeBatch]) -> list[Any]:
    """Return the batches as one list of chunks, joined where shapes allow it; the same batch R times is one."""
    if len({batch.hash for batch in batches}) == 1:
        return list(batches[0].chunks)
    return merged([chunk for batch in batches for chunk in batch.chunks])


def parts_for(subject: Subject, num_ranks: int) -> tuple[ProbeBatch, list[range]] | None:
    """Return the train probe in chunks, and which of them each rank works on; None where it cannot be cut.

    A probe of one chunk is cut evenly. Of several chunks each rank has neighbouring ones, about as many samples.
    In train mode samples may depend on each other, and on one mask of dropout for all: nothing is cut.
    """
    batch = subject.train
    if subject.mode != "eval":
        return None
    if len(batch.chunks) == 1:
        most = -(-batch.num_samples // num_ranks)
        try:
            with bystander(subject.model, mode=subject.mode, beside=subject.beside):
                batch = micro_batches(subject, batch.chunks[0], batch.num_samples, most)
        except Missing:
            return None
    if len(batch.chunks) == 1:
        return None
    return batch, dealt(batch.sizes, num_ranks)


def dealt(sizes: Sequence[int], num_ranks: int) -> list[range]:
    """Return which chunks each rank has: neighbours, so that each has about as many samples.

    >>> dealt([4, 4, 4, 4], 2), dealt([9, 1, 1, 1], 2), dealt([5], 2)
    ([range(0, 2), range(2, 4)], [range(0, 1), range(1, 4)], [range(0, 1), range(1, 1)])
    """
    total, bounds, passed, chunk = sum(sizes), [0], 0.0, 0
    for rank in range(1, num_ranks):
        while chunk < len(sizes) and passed + sizes[chunk] / 2 <= total * rank / num_ranks:
            passed += sizes[chunk]
            chunk += 1
        bounds.append(chunk)
    return [range(start, stop) for start, stop in pairwise([*bounds, len(sizes)])]


def same_sets(sets: Mapping[str, Any] | None) -> Any:
    """Return held-out sets as `heldout=` takes them: one that has no name of its own as it is."""
    if sets is None or set(sets) != {"heldout"}:
        return sets
    return sets["heldout"]
