"""A second watch on a model that is being watched: which of the two goes on, and what is said of it.

In a notebook a cell is run again and the first watch has no name any more: it would measure beside the second one for
the rest of the day. So the first is closed when model and optimiser are the same. With another optimiser (the two of
a GAN) both may be meant: both go on.
"""

from __future__ import annotations

import weakref
from typing import Protocol

from torch import nn
from torch.optim import Optimizer


class OpenWatch(Protocol):
    """What is asked of a watch here."""

    @property
    def id(self) -> str:
        """The run's id."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether it measures still."""
        ...

    def give_way(self, to: str) -> None:
        """Finish the run because another one takes over."""
        ...


_WATCHES: weakref.WeakKeyDictionary[nn.Module, list[tuple[weakref.ref, weakref.ref]]] = weakref.WeakKeyDictionary()


def second_watch(watch: OpenWatch, model: nn.Module, optimizer: Optimizer) -> str | None:
    """Note that a watch has begun; close the one that it replaces, and return what is to be said of others."""
    known = _WATCHES.setdefault(model, [])
    others = [(other, of()) for reference, of in known if (other := reference()) is not None and other.is_open]
    known.append((weakref.ref(watch), weakref.ref(optimizer)))
    replaced = [other for other, of in others if of is optimizer]
    for other in replaced:
        other.give_way(watch.id)
    if replaced:
        return (
            f"expected one watch of a model and its optimiser, got a second one (run {watch.id}) in trainvitals.watch; "
            f"the first, run {replaced[-1].id}, is closed as finished: use `with`, or close() it before the next begins"
        )
    if others:
        return (
            f"expected one watch of a model, got a second one (run {watch.id}) with another optimiser in "
            f"trainvitals.watch; run {others[-1][0].id} goes on as well, and each measures at its own price: close() "
            "the one that is not needed"
        )
    return None
