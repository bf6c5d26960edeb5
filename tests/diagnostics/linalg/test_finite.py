import pytest
import torch

from trainvitals.diagnostics.linalg.finite import NonFiniteProduct, finite


def test_finite_products_pass_and_others_are_named():
    x = torch.tensor([1.0, -2.0])
    assert finite(x) is x
    for bad in (float("nan"), float("inf")):
        with pytest.raises(NonFiniteProduct, match="NaN or infinity"):
            finite(torch.tensor([1.0, bad]))
