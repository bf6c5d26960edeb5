"""Products of an operator with several vectors, in blocks where it takes them.

P size of the operator, k vectors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainvitals.diagnostics.linalg.finite import finite
from trainvitals.diagnostics.linalg.krylov import Operator


def block_size(operator: Operator) -> int:
    """Return how many vectors share a pass of the operator: its `block_size`, 1 without."""
    return int(getattr(operator, "block_size", 1))


def offered_block(operator: Operator) -> int:
    """Return how many vectors the operator takes at once, to decide itself how many share a pass."""
    return int(getattr(operator, "offered_block", block_size(operator)))


def multiply_rows(operator: Operator, rows: Tensor) -> Tensor:
    """Return A v for each row v, (k, P), by as many at once as the operator takes.

    Blocks or not, the products are the same but for rounding.

    Raises:
        NonFiniteProduct: if a product holds NaN or infinity.

    Example:
        >>> multiply_rows(torch.diag(torch.tensor([1.0, 2.0])), torch.ones(3, 2)).tolist()
        [[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]
    """
    size = offered_block(operator)
    if size > 1:
        products = [(operator @ block.T.contiguous()).T for block in rows.split(size)]
        return finite(torch.cat(products)) if products else torch.empty_like(rows)
    return torch.stack([finite(operator @ row) for row in rows]) if len(rows) else torch.empty_like(rows)
