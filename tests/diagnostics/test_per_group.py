"""Loss and accuracy by group against loops over samples, on the case list."""

import pytest
import torch
from cases import CASES
from fake_snapshot import FakeSnapshot, evaluation

import trainvitals as tv
from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.generalization_gap import share_error
from trainvitals.diagnostics.per_group import PerGroup


def by_hand(model, loss, x, y, groups):
    losses, rights = {}, {}
    with torch.no_grad():
        for i in range(len(x)):
            z = model(x[i : i + 1])
            losses.setdefault(groups[i], []).append(float(loss(z, y[i : i + 1])))
            rights.setdefault(groups[i], []).append(int(z.argmax()) == int(y[i]) if y.ndim == 1 else 0)
    return [{g: sum(v) / len(v) for g, v in sorted(found.items())} for found in (losses, rights)]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_numbers_equal_loops_over_samples(case):
    built = case.build()
    words = [("water", "land", "air")[i % 3 if i < 9 else 0] for i in range(len(built.batch[0]))]
    options = {"per_group": {"groups": words, "heldout_groups": words}}
    arguments = {"loss": built.loss, "batch": built.batches, "heldout": built.heldout_batches}
    found = tv.measure(built.model, what=["per_group"], options=options, **arguments)
    model = built.model.eval()
    for where, batch in (("train", built.batch), ("heldout", built.heldout)):
        expected = by_hand(model, built.loss, *batch, words)
        for what, means, worst in zip(("loss", "accuracy"), expected, (max, min), strict=True):
            reading, of_worst = found[f"per_group.{what}_{where}"], found[f"per_group.worst_{what}_{where}"]
            if what == "accuracy" and not case.is_classifier:
                assert "not class labels" in reading.missing
                assert reading.missing == of_worst.missing
                continue
            assert reading.keys == ("air", "land", "water")
            assert reading.value.tolist() == pytest.approx(list(means.values()), rel=1e-9)
            assert of_worst.value == pytest.approx(worst(means.values()), rel=1e-9)
            assert means[of_worst.details["group"]] == worst(means.values())


def test_groups_that_are_the_classes_give_the_numbers_per_class():
    built = CASES[0].build()
    arguments = {"loss": built.loss, "batch": built.batch, "what": ["per_class", "per_group"]}
    found = tv.measure(built.model, options={"per_group": {"groups": built.batch[1]}}, **arguments)
    for part in ("loss_train", "accuracy_train"):
        assert found[f"per_group.{part}"].value.tolist() == found[f"per_class.{part}"].value.tolist()
        assert found[f"per_group.{part}"].keys == found[f"per_class.{part}"].keys


def test_naming_and_order_of_samples_do_not_matter():
    z, y, losses = torch.eye(3)[[0, 1, 2, 2]], torch.tensor([0, 1, 1, 2]), torch.tensor([1.0, 2.0, 4.0, 8.0])
    turn = [3, 1, 0, 2]
    one = PerGroup([5, 5, 6, 6]).measure(FakeSnapshot(train=evaluation(0.0, z, y), sample_losses=losses))
    snapshot = FakeSnapshot(train=evaluation(0.0, z[turn], y[turn]), sample_losses=losses[turn])
    other = PerGroup(["b", "a", "a", "b"]).measure(snapshot)
    assert one["loss_train"].value.tolist() == other["loss_train"].value.tolist() == [1.5, 6.0]
    assert one["accuracy_train"].value.tolist() == other["accuracy_train"].value.tolist() == [1.0, 0.5]
    assert one["accuracy_train"].error.tolist() == pytest.approx([share_error(1.0, 2), share_error(0.5, 2)])
    assert (one["worst_loss_train"].details, other["worst_loss_train"].details) == ({"group": "6"}, {"group": "b"})


def test_missing_with_the_reason():
    with pytest.raises(Missing, match="no groups were given"):
        PerGroup().measure(FakeSnapshot())
    snapshot = FakeSnapshot(train=evaluation(0.0, torch.eye(3), torch.arange(3)), sample_losses=torch.ones(3))
    found = PerGroup([0, 1, 1]).measure(snapshot)
    assert found["loss_train"].missing is None
    assert found["loss_heldout"].missing == "no heldout_sample_losses"
    assert found["worst_accuracy_heldout"].missing == "no heldout"
    assert "2 samples, the train probe has 3" in PerGroup([0, 1]).measure(snapshot)["worst_loss_train"].missing
    snapshot.sample_losses[1] = torch.inf
    assert "NaN or Inf" in PerGroup([0, 1, 1]).measure(snapshot)["loss_train"].missing
    snapshot = FakeSnapshot(heldout=evaluation(0.0, torch.eye(3), torch.arange(3)), heldout_sample_losses=torch.ones(3))
    found = PerGroup([0, 1, 1]).measure(snapshot)
    assert "no groups were given; write heldout_groups" in found["accuracy_heldout"].missing


def test_what_is_no_group_is_refused():
    with pytest.raises(ValueError, match=r"got 0\.5 in heldout_groups= of the options of 'per_group'"):
        PerGroup(heldout_groups=[0.5])
