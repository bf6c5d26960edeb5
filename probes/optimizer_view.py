"""The optimiser's hyperparameters and state by parameter name, read without touching it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from trainvitals.diagnostics.base import OptimizerView, ParameterGroup


def optimizer_view(optimizer: Optimizer, model: nn.Module) -> OptimizerView:
    """Return the optimiser as diagnostics see it. Parameters that are not the model's are left out."""
    names = names_of_parameters(model)
    get = names.get
    groups = tuple(
        ParameterGroup(
            options={key: value for key, value in group.items() if key != "params"},
            names=tuple(name for name in map(get, group["params"]) if name is not None),
        )
        for group in optimizer.param_groups
    )
    return OptimizerView(_kind(optimizer), groups, _States(optimizer, names))


class _States(Mapping[str, Mapping[str, Any]]):
    """The state of each parameter by its name, looked up when it is first asked for: most readers never do."""

    def __init__(self, optimizer: Optimizer, names: Mapping[Tensor, str]) -> None:
        self._optimizer = optimizer
        self._names = names

    @cached_property
    def _found(self) -> dict[str, Mapping[str, Any]]:
        names, state = self._names, self._optimizer.state
        # `.get`: the state is a defaultdict, and looking a parameter up would create its entry
        return {
            names[p]: state.get(p, {})
            for group in self._optimizer.param_groups
            for p in group["params"]
            if p in names
        }  # fmt: skip

    def __getitem__(self, name: str) -> Mapping[str, Any]:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def _kind(optimizer: Optimizer) -> str:
    """Return the name of a class of torch's; with its module where it is another's, for its steps may be too."""
    cls = type(optimizer)
    is_of_torch = cls.__module__.partition(".")[0] == "torch"
    return cls.__name__ if is_of_torch else f"{cls.__module__}.{cls.__qualname__}"


def names_of_parameters(model: nn.Module) -> dict[Tensor, str]:
    """Return names by parameter; a tied parameter has its first name. Tensors hash by identity."""
    return {p: name for name, p in model.named_parameters() if p.requires_grad}
