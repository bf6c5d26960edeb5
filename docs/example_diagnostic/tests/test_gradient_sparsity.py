"""Against a count by hand, and the reason where the number is undefined."""

import pytest
import torch

import trainvitals as tv


def measured(model, x, y, **options):
    found = tv.measure(
        model, loss=torch.nn.functional.mse_loss, batch=(x, y), what={"example.sparsity": options}
    )  # fmt: skip
    return found["example.sparsity"]


def test_against_a_count_by_hand():
    torch.manual_seed(0)
    model, x, y = torch.nn.Linear(5, 3), torch.randn(8, 5), torch.randn(8, 3)
    torch.nn.functional.mse_loss(model(x), y).backward()
    entries = [abs(v) for p in model.parameters() for v in p.grad.flatten().tolist()]
    expected = sum(v < 0.5 * max(entries) for v in entries) / len(entries)
    assert measured(model, x, y, fraction=0.5).value == pytest.approx(expected)


def test_a_zero_gradient_is_missing():
    model, x = torch.nn.Linear(2, 1), torch.zeros(4, 2)
    assert measured(model, x, model(x).detach()).missing == "the gradient is zero everywhere"
