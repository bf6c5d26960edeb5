"""Weights that are this model's go in; others are told apart in a few words."""

from __future__ import annotations

import pytest
import torch
from checkpoints.saved import build, trained
from torch import nn

from trainvitals.checkpoints.errors import CheckpointError
from trainvitals.checkpoints.fitting import fit


def weights() -> dict[str, torch.Tensor]:
    return dict(trained()[0].state_dict())


def refused(changed: dict[str, torch.Tensor]) -> str:
    model = build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        fit(model, changed, "step_1.pt")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items()), "half of it went in"
    assert str(caught.value).startswith("expected ")
    assert "in step_1.pt" in str(caught.value)
    return str(caught.value)


def test_other_names_are_shown_with_near_ones():
    changed = weights()
    changed["fc.weight"], changed["3.wieght"] = changed.pop("0.weight"), changed.pop("3.weight")
    text = refused(changed)
    assert "'3.weight' is not there (but '3.wieght' is)" in text
    assert "2 of 9 names missing, 2 unknown" in text


def test_a_larger_model_and_another_size_are_another_architecture():
    assert "'4.weight' is not the model's" in refused({**weights(), "4.weight": torch.ones(2, 2)})
    assert "'3.weight' (5, 6) in place of (3, 6)" in refused({**weights(), "3.weight": torch.ones(5, 6)})


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(bad):
    assert "got NaN or Inf in '3.bias' (1 of 9 tensors)" in refused({**weights(), "3.bias": torch.full((3,), bad)})


def test_a_tied_weight_that_is_saved_once_is_enough():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(3, 2), nn.Linear(2, 3, bias=False)
            self.head.weight = self.embed.weight

    model = Tied()
    fit(model, {"embed.weight": torch.ones(3, 2)}, "tied")
    assert torch.equal(model.head.weight.detach(), torch.ones(3, 2))


def test_half_precision_goes_into_the_models_own_dtype():
    model = build()
    half = {name: value.bfloat16() if value.is_floating_point() else value for name, value in weights().items()}
    fit(model, half, "half")
    assert model[0].weight.dtype == torch.float64
    assert torch.equal(model[0].weight.detach(), weights()["0.weight"].bfloat16().double())
