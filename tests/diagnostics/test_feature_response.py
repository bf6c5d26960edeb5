"""Responses to single features against passes by hand, and a network that uses one feature of two."""

import pytest
import torch
import torch.nn.functional as F
from cases import CASES
from torch import nn

import trainvitals as tv
from trainvitals.diagnostics.feature_response import FeatureResponse
from trainvitals.diagnostics.generalization_gap import share_error

FEATURES = {"first": 0, "pair": [1, 3]}


def by_hand(model, x, y, columns, how):
    flat = x.clone().reshape(len(x), -1)
    for i in range(len(flat)):
        for j in range(flat.shape[1]):
            inside = j in columns
            if how == "flipped" and inside:
                flat[i, j] = -flat[i, j]
            if (how == "zeroed" and inside) or (how == "alone" and not inside):
                flat[i, j] = 0.0
    with torch.no_grad():
        z = model(flat.view(x.shape)).tolist()
    rows = list(zip(z, y.tolist(), strict=True))
    right = sum(max(range(len(row)), key=row.__getitem__) == c for row, c in rows)
    lead = sum(row[c] - max(v for k, v in enumerate(row) if k != c) for row, c in rows)
    return right / len(rows), lead / len(rows)


@pytest.mark.parametrize("case", [c for c in CASES if c.is_classifier], ids=lambda c: c.name)
def test_numbers_equal_passes_by_hand(case):
    built = case.build()
    what = {"feature.response": {"features": FEATURES}}
    found = tv.measure(built.model, loss=built.loss, batch=built.batches, what=what)
    model, (x, y) = built.model.eval(), built.batch
    for how in ("zeroed", "flipped", "alone"):
        expected = [by_hand(model, x, y, columns, how) for columns in ([0], [1, 3])]
        accuracy, margin = (found[f"feature.response.{word}_{how}"] for word in ("accuracy", "margin"))
        assert accuracy.keys == margin.keys == ("first", "pair")
        assert accuracy.value.tolist() == pytest.approx([a for a, _ in expected])
        assert margin.value.tolist() == pytest.approx([m for _, m in expected], rel=1e-6)
        assert accuracy.error.tolist() == pytest.approx([share_error(a, len(x)) for a, _ in expected])


def measured(model, x, y, features, loss=F.cross_entropy):
    found = tv.measure(model, loss=loss, batch=(x, y), what={"feature.response": {"features": features}})
    return {name.removeprefix("feature.response."): reading for name, reading in found.items()}


def test_a_network_that_uses_one_of_two_good_features_shows_it():
    torch.manual_seed(0)
    y = torch.arange(200) % 2
    x = (2.0 * y[:, None] - 1) * torch.tensor([1.0, 1.0]) + 0.1 * torch.randn(200, 2)
    model = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))  # the second column is not used
    found = measured(model, x, y, [0, 1])
    assert found["accuracy_zeroed"].keys == ("0", "1")
    assert found["accuracy_flipped"].value.tolist() == [0.0, 1.0]
    assert found["accuracy_alone"].value.tolist() == [1.0, 0.5]
    assert found["margin_zeroed"].value.tolist() == pytest.approx([0.0, float(2 * x[:, 0].abs().mean())], rel=1e-6)


def test_flipping_is_its_own_inverse_and_all_features_alone_are_the_inputs():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(6, 3)), torch.randn(20, 2, 3)
    y = torch.arange(20) % 3
    everything = {"all": range(6)}
    flipped = measured(model, x, y, everything)["margin_flipped"]
    assert measured(model, -x, y, everything)["margin_alone"].value == pytest.approx(flipped.value)
    plain = tv.measure(model, loss=F.cross_entropy, batch=(x, y), what=["margin"])["margin.mean"]
    assert measured(model, x, y, everything)["margin_alone"].value[0] == pytest.approx(plain.value, rel=1e-6)
    assert measured(model, x, y, everything)["margin_alone"].error[0] == pytest.approx(plain.error, rel=1e-6)


def test_missing_with_the_reason():
    model, x, y = nn.Linear(2, 3), torch.randn(6, 2), torch.arange(6) % 3
    assert "no features are named" in measured(model, x, y, None)["margin_alone"].missing
    beyond = measured(model, x, y, {"far": 2})["margin_alone"]
    assert beyond.missing == "'far' has column 2, the flattened inputs have 2"
    assert "not class labels" in measured(model, x, torch.randn(6, 3), [0], F.mse_loss)["accuracy_zeroed"].missing
    tokens = nn.Sequential(nn.Embedding(4, 3), nn.Flatten(), nn.Linear(6, 3))
    assert "torch.int64" in measured(tokens, torch.zeros(6, 2, dtype=torch.long), y, [0])["margin_alone"].missing
    nn.init.constant_(model.weight, torch.inf)
    assert "NaN or Inf" in measured(model, x, y, [0])["margin_alone"].missing
    one = measured(nn.Linear(2, 3), x[:1], y[:1], [0])
    assert one["margin_alone"].error is None


@pytest.mark.parametrize("features", [[-1], {"a": []}, {"a": [0.5]}, {"a": True}], ids=str)
def test_columns_that_are_none_are_refused(features):
    with pytest.raises(ValueError, match=r"options of 'feature\.response'"):
        FeatureResponse(features=features)
