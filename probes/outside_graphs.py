"""What the trainer calls of ours is never compiled with the trainer's own code."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def outside_graphs(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function that runs as it is written where `torch.compile` traces its caller.

    A compiled training step calls the optimiser's hooks: traced, a measurement would become a part of the user's
    graphs. `torch.compiler.disable` does the work, but only once the compiler is there: to load it takes longer than
    all else that `watch` does.

    Example:
        >>> @outside_graphs
        ... def hook(step):
        ...     return step + 1
        >>> hook(1)
        2
    """
    disabled: list[Callable[P, R]] = []

    @functools.wraps(function)
    def outside(*args: P.args, **kwargs: P.kwargs) -> R:
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        if not disabled:
            disabled.append(torch.compiler.disable(function))  # pyright: ignore[reportArgumentType]
        return disabled[0](*args, **kwargs)

    vars(outside)["_torchdynamo_disable"] = True  # it is not traced as a part of its caller
    return outside
