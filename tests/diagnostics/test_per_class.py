"""Loss and accuracy by class against loops over samples, on the case list."""

import pytest
import torch
from cases import CASES
from fake_snapshot import FakeSnapshot, evaluation

import trainvitals as tv
from trainvitals.diagnostics.generalization_gap import share_error
from trainvitals.diagnostics.per_class import PerClass


def by_hand(model, loss, x, y):
    losses, rights = {}, {}
    with torch.no_grad():
        for i in range(len(x)):
            z = model(x[i : i + 1])
            losses.setdefault(int(y[i]), []).append(float(loss(z, y[i : i + 1])))
            rights.setdefault(int(y[i]), []).append(int(z.argmax()) == int(y[i]))
    return [{c: sum(v) / len(v) for c, v in sorted(found.items())} for found in (losses, rights)]


@pytest.mark.parametrize("case", [c for c in CASES if c.is_classifier], ids=lambda c: c.name)
def test_numbers_equal_loops_over_samples(case):
    built = case.build()
    arguments = {"loss": built.loss, "batch": built.batches, "heldout": built.heldout_batches}
    found = tv.measure(built.model, what=["per_class"], **arguments)
    model = built.model.eval()
    for where, batch in (("train", built.batch), ("heldout", built.heldout)):
        losses, rights = by_hand(model, built.loss, *batch)
        for what, expected in (("loss", losses), ("accuracy", rights)):
            reading = found[f"per_class.{what}_{where}"]
            assert reading.keys == tuple(map(str, expected))
            assert reading.value.tolist() == pytest.approx(list(expected.values()), rel=1e-9)
        worst = max(losses, key=losses.__getitem__)
        assert found[f"per_class.loss_{where}"].details["worst_class"] == worst


def test_the_mean_over_classes_weighted_by_samples_is_the_whole():
    built = CASES[0].build()
    found = tv.measure(built.model, loss=built.loss, batch=built.batch, what=["per_class", "loss", "accuracy"])
    counts = torch.bincount(built.batch[1]).double()
    for part, whole in (("loss_train", "loss.train"), ("accuracy_train", "accuracy.train")):
        mean = float((torch.tensor(found[f"per_class.{part}"].value) * counts).sum() / counts.sum())
        assert mean == pytest.approx(found[whole].value)


def test_absent_classes_are_left_out_and_named():
    outputs = torch.eye(4)[[1, 1, 3, 0]]
    snapshot = FakeSnapshot(
        train=evaluation(0.0, outputs, torch.tensor([1, 1, 3, 3])), sample_losses=torch.tensor([1.0, 2.0, 5.0, 7.0])
    )
    found = PerClass().measure(snapshot)
    assert found["loss_train"].keys == found["accuracy_train"].keys == ("1", "3")
    assert found["loss_train"].value.tolist() == [1.5, 6.0]
    assert found["accuracy_train"].value.tolist() == [1.0, 0.5]
    assert found["accuracy_train"].error.tolist() == pytest.approx([share_error(1.0, 2), share_error(0.5, 2)])
    assert set(found["loss_train"].details["left_out"]) == {"0", "2"}
    assert found["accuracy_train"].details["worst_class"] == 3


def test_parts_are_missing_on_their_own():
    outputs, y = torch.eye(3), torch.arange(3)
    found = PerClass().measure(FakeSnapshot(train=evaluation(0.0, outputs, y)))
    assert found["loss_train"].missing == "no sample_losses"
    assert found["loss_heldout"].missing == found["accuracy_heldout"].missing == "no heldout"
    assert found["accuracy_train"].missing is None
    with_nan = FakeSnapshot(train=evaluation(0.0, outputs, y), sample_losses=torch.tensor([0.0, torch.nan, 0.0]))
    assert "NaN" in PerClass().measure(with_nan)["loss_train"].missing
    regression = FakeSnapshot(train=evaluation(0.0, outputs, torch.randn(3, 3)), sample_losses=torch.zeros(3))
    for part in ("loss_train", "accuracy_train"):
        assert "not class labels" in PerClass().measure(regression)[part].missing
