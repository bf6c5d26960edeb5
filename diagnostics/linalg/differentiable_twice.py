"""Second derivatives that torch leaves out without an error: how they are found before they become a wrong number.

A backward pass marked `once_differentiable` puts an error into the graph, but off the way to the parameters:
`torch.autograd.grad` never meets it and takes that part for constant. A backward pass that detaches leaves nothing
at all; then products are not those of a symmetric matrix.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_ERROR_NODE = "torch::autograd::Error"
_ASYMMETRY = 0.01  # of uᵀHv: rounding in TF32 is a tenth of it


def refuse_once_differentiable(tensors: Sequence[Tensor]) -> None:
    """Raise RuntimeError if a graph behind these tensors holds an operation marked `once_differentiable`.

    Example:
        >>> x = torch.ones(2, requires_grad=True)
        >>> refuse_once_differentiable([x.exp()])
    """
    seen, waiting = set(), [t.grad_fn for t in tensors if t.grad_fn is not None]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.name() == _ERROR_NODE:
            raise RuntimeError("a backward pass of it is marked once_differentiable")
        waiting += [after for after, _ in node.next_functions if after is not None]


def looks_asymmetric(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> bool:
    """Tell whether uᵀ(Hv) and vᵀ(Hu) differ by more than rounding, from two vectors and their products, (P,) each.

    Products of a matrix near zero are rounding themselves: it is a suspicion, not more.

    Example:
        >>> u, v = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
        >>> A = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> looks_asymmetric((u, A @ u), (v, A @ v)), looks_asymmetric((u, A @ u), (u, A @ u))
        (True, False)
    """
    (u, Hu), (v, Hv) = ((a.double(), b.double()) for a, b in (first, second))
    one, other = float(u @ Hv), float(v @ Hu)
    floor = 100 * torch.finfo(first[0].dtype).eps * float(u.norm() * Hv.norm() + v.norm() * Hu.norm())
    return abs(one - other) > _ASYMMETRY * max(abs(one), abs(other)) + floor
