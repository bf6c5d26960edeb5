"""Waiting for all ranks to call `watch`, before anything is done that would wait for them much longer.

Who is used to log on the first rank alone writes `if rank == 0:` around everything: torch would hold that rank for
half an hour and then speak of sockets.
"""

from __future__ import annotations

import collections
import time

from torch.distributed import distributed_c10d

ARRIVAL_SECONDS = 300.0
_POLL_SECONDS = 0.02
_calls: collections.Counter[tuple[int, ...]] = collections.Counter()


def await_everybody(members: tuple[int, ...]) -> None:
    """Return when all of these ranks have called this as often as this one.

    Counted in the store by which the process group was made; where torch has none to show, nobody is waited for.

    Raises:
        ValueError: if some have not come within five minutes.
    """
    find_store = getattr(distributed_c10d, "_get_default_store", None)
    if find_store is None:
        return
    store = find_store()
    _calls[members] += 1
    key = f"trainvitals/watch/{'-'.join(map(str, members))}/{_calls[members]}"
    num_here, deadline = store.add(key, 1), time.monotonic() + ARRIVAL_SECONDS
    while num_here < len(members):
        if time.monotonic() > deadline:
            store.add(key, -1)
            _calls[members] -= 1
            raise ValueError(
                f"expected all {len(members)} ranks of the model to call trainvitals.watch, got {num_here} after "
                f"{ARRIVAL_SECONDS:.0f} s; call it on every rank, or pass ranks='this' to watch on one rank alone"
            )
        time.sleep(_POLL_SECONDS)
        num_here = store.add(key, 0)
