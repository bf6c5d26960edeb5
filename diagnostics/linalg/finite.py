"""Products that overflowed are an error with a name, before they become a wrong number."""

from __future__ import annotations

import math

from torch import Tensor


class NonFiniteProduct(ArithmeticError):  # noqa: N818  (it names what came, as ZeroDivisionError's kin do)
    """A matrix-vector product held NaN or infinity: the matrix has no spectrum to speak of."""


def finite(product: Tensor) -> Tensor:
    """Return `product` if it is finite throughout.

    Raises:
        NonFiniteProduct: if it holds NaN or infinity.
    """
    # a sum with NaN or infinity in it is not finite; a look at every entry takes fifty times as long
    if not math.isfinite(float(product.sum())) and not bool(product.isfinite().all()):
        raise NonFiniteProduct(
            "expected finite Hessian-vector products, got NaN or infinity in the curvature of the probe batch; "
            "look at the loss: it has overflowed or diverged"
        )
    return product
