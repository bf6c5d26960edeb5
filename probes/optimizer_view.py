"""The optimiser's hyperparameters and state by parameter name, read without touching it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.optim import Optimizer

from trainvitals.diagnostics.base import OptimizerView, ParameterGroup


def optimizer_view(optimizer: Optimizer, model: nn.Module) -> OptimizerView:
    """Return the optimiser as diagnostics see it. Parameters that are not the model's are left out."""
    names = names_of_parameters(model)
    groups = tuple(
        ParameterGroup(
            options={key: value for key, value in group.items() if key != "params"},
            names=tuple(names[p] for p in group["params"] if p in names),
        )
        for group in optimizer.param_groups
    )
    # `.get`: the state is a defaultdict, and looking a parameter up would create its entry
    state: dict[str, Mapping[str, object]] = {
        names[p]: optimizer.state.get(p, {}) for group in optimizer.param_groups for p in group["params"] if p in names
    }
    return OptimizerView(_kind(optimizer), groups, state)


def _kind(optimizer: Optimizer) -> str:
    """Return the name of a class of torch's; with its module where it is another's, for its steps may be too."""
    cls = type(optimizer)
    is_of_torch = cls.__module__.partition(".")[0] == "torch"
    return cls.__name__ if is_of_torch else f"{cls.__module__}.{cls.__qualname__}"


def names_of_parameters(model: nn.Module) -> dict[Tensor, str]:
    """Return names by parameter; a tied parameter has its first name. Tensors hash by identity."""
    return {p: name for name, p in model.named_parameters() if p.requires_grad}
