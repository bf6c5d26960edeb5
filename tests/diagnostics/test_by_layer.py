"""Readings by layer, and reasons that stay readable on a model of many layers."""

import pytest
import torch

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.by_layer import by_layer


def test_values_keep_their_order_and_names():
    reading = by_layer({"b": 2.0, "a": 1.0}, {}, "nothing")
    assert reading.keys == ("b", "a")
    assert reading.value.tolist() == [2.0, 1.0]
    assert reading.value.dtype == torch.float64
    assert reading.details == {}


def test_without_a_value_the_first_reasons_are_named_and_the_rest_counted():
    with pytest.raises(Missing) as caught:
        by_layer({}, {f"layer{k}": "it is zero" for k in range(200)}, "nothing")
    assert str(caught.value) == "layer0: it is zero; layer1: it is zero; layer2: it is zero; and 197 more"


def test_without_layers_the_given_reason_stands():
    with pytest.raises(Missing, match="the model has no weight matrix"):
        by_layer({}, {}, "the model has no weight matrix")
