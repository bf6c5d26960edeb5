"""A diagonal block of an operator: its restriction to some of the parameters, by their names.

P parameters of the whole operator, p of the block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from trainvitals.diagnostics.linalg.krylov import Operator


class BlockOperator:
    """The block S A Sᵀ of a symmetric operator, S the selection of the named parameters, (p, p).

    One product is one of the whole operator, with zeros outside the block.

    Args:
        operator: A, (P, P).
        parameters: all parameters by name, in the order in which they lie in A's vectors.
        names: those of the block.

    Raises:
        ValueError: if the parameters do not add up to P, or no name or an unknown one is given.

    Example:
        >>> theta = {"a": torch.zeros(2), "b": torch.zeros(1)}
        >>> B = BlockOperator(torch.tensor([[1.0, 2, 3], [2, 4, 5], [3, 5, 6]]), theta, ["b"])
        >>> B.shape, B @ torch.tensor([1.0])
        (torch.Size([1, 1]), tensor([6.]))
    """

    def __init__(self, operator: Operator, parameters: Mapping[str, Tensor], names: Sequence[str]) -> None:
        unknown = [name for name in names if name not in parameters]
        total = sum(p.numel() for p in parameters.values())
        if not names or unknown or total != operator.shape[0]:
            raise ValueError(
                f"expected names among the {len(parameters)} parameters of an operator of size {operator.shape[0]}, "
                f"got {unknown or list(names)} of {total} entries in BlockOperator; "
                "give parameters in the operator's order, and names as `matching_names` finds them"
            )
        self._operator = operator
        wanted = set(names)
        mask = torch.cat([torch.full((p.numel(),), n in wanted) for n, p in parameters.items()])
        self._index = mask.nonzero().squeeze(1).to(operator.device)  # (p,)
        self.shape, self.dtype, self.device = torch.Size([len(self._index)] * 2), operator.dtype, operator.device

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """Return the product with v (p,) or with the columns of V (p, k)."""
        vectors = vectors.to(self.device, self.dtype)
        whole = vectors.new_zeros(self._operator.shape[0], *vectors.shape[1:])
        whole[self._index] = vectors
        return (self._operator @ whole)[self._index]


def matching_names(parameters: Mapping[str, Tensor], pattern: str) -> list[str]:
    """Return the parameters whose name matches a pattern with `*`, `?` and `[]`.

    Raises:
        ValueError: if there is none, with near names.

    >>> matching_names({"fc.weight": torch.zeros(1), "fc.bias": torch.zeros(1)}, "*.weight")
    ['fc.weight']
    """
    found = [name for name in parameters if fnmatchcase(name, pattern)]
    if not found:
        near = get_close_matches(pattern, list(parameters), 3, 0.3) or list(parameters)[:3]
        raise ValueError(
            f"expected a pattern that matches a trainable parameter, got {pattern!r} in matching_names; "
            f"near names: {', '.join(near)}"
        )
    return found


def layers(parameters: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Return parameter names by the module that owns them: `fc.weight` and `fc.bias` make the layer `fc`.

    Parameters of the model itself make a layer under their own name.

    >>> layers({"fc.weight": torch.zeros(1), "fc.bias": torch.zeros(1), "scale": torch.zeros(1)})
    {'fc': ['fc.weight', 'fc.bias'], 'scale': ['scale']}
    """
    found: dict[str, list[str]] = {}
    for name in parameters:
        found.setdefault(name.rpartition(".")[0] or name, []).append(name)
    return found
