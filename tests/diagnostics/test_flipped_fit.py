"""The fit of marked samples against a loop, through `tv.measure`, and on a run that memorises."""

import pytest
import torch
from fake_snapshot import FakeSnapshot, evaluation
from torch import nn

import trainvitals as tv
from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.flipped_fit import FlippedFit
from trainvitals.diagnostics.generalization_gap import share_error


def problem(N=40, C=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(N, C, generator=generator), torch.randint(C, (N,), generator=generator)


def measured(z, y, **options):
    return FlippedFit(**options).measure(FakeSnapshot(train=evaluation(0.0, z, y)))


def test_shares_equal_a_loop():
    z, y = problem()
    indices, true = [7, 0, 31, 12, 20], [2, 1, 0, 0, 1]
    found = measured(z, y, indices=indices, true_labels=true)
    predicted, y = [int(row.argmax()) for row in z], y.tolist()
    flipped = sum(predicted[i] == y[i] for i in indices) / 5
    clean = sum(predicted[i] == y[i] for i in range(40) if i not in indices) / 35
    seen_through = sum(predicted[i] == c for i, c in zip(indices, true, strict=True)) / 5
    assert [found[part].value for part in ("flipped", "clean", "true")] == pytest.approx([flipped, clean, seen_through])
    assert found["clean"].error == pytest.approx(share_error(clean, 35))
    assert found["flipped"].details["num_samples"] == 5


def test_indices_may_be_tensors_and_their_order_does_not_matter():
    z, y = problem()
    one = measured(z, y, indices=torch.tensor([3, 9, 4]), true_labels=torch.tensor([0, 1, 2]))
    other = measured(z, y, indices=(4, 3, 9), true_labels=(2, 0, 1))
    assert {part: r.value for part, r in one.items()} == {part: r.value for part, r in other.items()}


def test_a_network_that_knows_better_fits_clean_first_and_wrong_labels_at_last():
    torch.manual_seed(0)
    x = torch.randn(150, 10)
    true = (x[:, 0] > 0).long()
    y, indices = true.clone(), torch.arange(5, 150, 10)
    y[indices] = 1 - y[indices]
    model = nn.Sequential(nn.Linear(10, 128), nn.ReLU(), nn.Linear(128, 2))
    optimizer, loss = torch.optim.Adam(model.parameters(), 0.01), nn.functional.cross_entropy
    options = {"flipped_fit": {"indices": indices, "true_labels": true[indices]}}
    seen = {}
    for step in range(401):
        if step in (10, 400):
            seen[step] = tv.measure(model, loss=loss, batch=(x, y), what=["flipped_fit"], options=options)
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
    early, late = ({part: r.value for part, r in seen[step].items()} for step in (10, 400))
    assert early["flipped_fit.clean"] > 0.8
    assert early["flipped_fit.flipped"] < 0.5 < early["flipped_fit.true"]
    assert late == {"flipped_fit.clean": 1.0, "flipped_fit.flipped": 1.0, "flipped_fit.true": 0.0}


def test_missing_with_the_reason():
    z, y = problem(4)
    with pytest.raises(Missing, match="no samples are marked"):
        measured(z, y)
    with pytest.raises(Missing, match="sample 4 is marked, and the train probe has 4"):
        measured(z, y, indices=[4])
    with pytest.raises(Missing, match="not class labels"):
        measured(z, y.float(), indices=[0])
    assert "true labels were not given" in measured(z, y, indices=[0])["true"].missing
    assert "every sample" in measured(z, y, indices=range(4))["clean"].missing


@pytest.mark.parametrize("indices", [[-1], [3, 3], list(range(20)) * 2], ids=["negative", "twice", "many"])
def test_places_that_are_none_are_refused(indices):
    with pytest.raises(ValueError, match="expected different places of at least 0"):
        FlippedFit(indices=indices)


def test_another_number_of_true_labels_is_refused():
    with pytest.raises(ValueError, match="expected one true label per index, got 1 for 2"):
        FlippedFit(indices=[0, 1], true_labels=[1])
