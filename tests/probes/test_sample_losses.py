"""Losses by sample against the loss of each sample alone, and what has none says why."""

import pytest
import torch
import torch.nn.functional as F
from cases import CASES
from torch import nn

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.registry import select
from trainvitals.probes.bystander import bystander
from trainvitals.probes.sample_losses import check_mean
from trainvitals.probes.snapshot import ModelSnapshot
from trainvitals.probes.subject import make_subject


def snapshot_of(model, what=("loss",), **arguments):
    subject = make_subject(model, call="test", **({"forward": None, "loss": None} | arguments))
    return subject, ModelSnapshot(subject, {d.name: d for d in select(list(what))})


def problem(num=12):
    torch.manual_seed(0)
    return nn.Linear(4, 3), torch.randn(num, 4), torch.arange(num) % 3


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_sample_has_the_loss_that_it_has_alone(case):
    built = case.build()
    subject, snapshot = snapshot_of(built.model, loss=built.loss, train=built.batches, heldout=built.heldout_batches)
    model = built.model.eval()
    with bystander(subject.model):
        passes = {"train": snapshot.sample_losses, "heldout": snapshot.heldout_sample_losses}
    num_passes = len(built.batches) + len(built.heldout_batches)
    assert subject.num_passes == {"forward": num_passes, "backward": 0}  # none of their own
    for found, (x, y) in zip(passes.values(), (built.batch, built.heldout), strict=True):
        with torch.no_grad():
            expected = [float(built.loss(model(x[i : i + 1]), y[i : i + 1])) for i in range(len(x))]
        assert found.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_a_loss_that_looks_at_numbers_goes_one_by_one():
    model, x, y = problem()

    def loss(z, t):
        return F.cross_entropy(z, t) if float(z.sum()) < 1e9 else z.sum()

    with bystander(model):
        found = snapshot_of(model, loss=loss, train=(x, y))[1].sample_losses
    torch.testing.assert_close(found, F.cross_entropy(model(x), y, reduction="none").double().detach())


def test_a_loss_that_writes_to_its_input_does_not_change_the_outputs():
    model, x, y = problem()
    with bystander(model):
        _, snapshot = snapshot_of(model, loss=lambda z, t: F.cross_entropy(z.mul_(0.5), t), train=(x, y))
        before = snapshot.train.outputs.clone()
        with pytest.raises(Missing, match="not the mean of its samples"):  # the pass's own outputs were written over
            _ = snapshot.sample_losses
        assert torch.equal(snapshot.train.outputs, before)


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        (lambda z, t: F.cross_entropy(z, t, reduction="sum"), "not the mean of its samples"),
        (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 0.1])), "not the mean of its samples"),
        (lambda z, t: torch.nan_to_num(z.var(0).sum(), 0.5) if len(z) > 1 else z.sum() / 0, "not the mean of its samp"),
        (lambda z, t: z.std(0).sum() if len(z) > 1 else z.missing, "does not take one sample alone"),
    ],
    ids=["sum", "class weights", "infinite alone", "needs two"],
)
def test_a_loss_that_is_no_mean_over_samples_is_missing(loss, reason):
    model, x, y = problem()
    with bystander(model), pytest.raises(Missing, match=reason):
        _ = snapshot_of(model, loss=loss, train=(x, y))[1].sample_losses


def test_forward_gives_them_if_it_returns_one_a_sample():
    model, x, y = problem()

    def by_sample(model, batch):
        z = model(batch[0])
        return z, F.cross_entropy(z, batch[1], reduction="none")

    with bystander(model):
        subject, snapshot = snapshot_of(model, forward=by_sample, train=(x, y))
        torch.testing.assert_close(
            snapshot.sample_losses, F.cross_entropy(model(x), y, reduction="none").double().detach()
        )
        assert subject.num_passes["forward"] == 2  # the shared one, and one of its own


def test_forward_that_returns_a_mean_says_so():
    model, x, y = problem()

    def mean(model, batch):
        z = model(batch[0])
        return z, F.cross_entropy(z, batch[1])

    with bystander(model), pytest.raises(Missing, match="returns the mean loss"):
        _ = snapshot_of(model, forward=mean, train=(x, y))[1].sample_losses


def test_outputs_without_a_row_for_each_sample_say_so():
    model, x, y = problem()
    with bystander(model), pytest.raises(Missing, match="no row for each sample"):
        _ = snapshot_of(Summed(), loss=lambda z, t: z.mean(), train=(x, y))[1].sample_losses


class Summed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(x).sum(0)


def test_check_mean_refuses_a_difference_of_a_hundredth():
    check_mean(1.0, 1.0005)
    check_mean(float("nan"), 1.0)  # the batch itself says that something is wrong
    with pytest.raises(Missing, match="not the mean"):
        check_mean(1.0, float("nan"))
    with pytest.raises(Missing, match="not the mean"):
        check_mean(1.0, 1.01)


def test_features_of_the_heldout_probe_are_the_classifiers_inputs_on_it():
    model, x, y = problem()
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), model)
    subject, snapshot = snapshot_of(net, loss=F.cross_entropy, train=(x, y), heldout=[(x[:5], y[:5]), (x[5:7], y[5:7])])
    with bystander(net):
        with pytest.raises(Missing, match="no last-layer features"):  # nothing that is due asked for them
            _ = snapshot.heldout_features
    snapshot = ModelSnapshot(subject, {"it": AsksForThem()})
    with bystander(net):
        torch.testing.assert_close(snapshot.heldout_features, net[:2](x[:7]).detach())
        assert snapshot.heldout.num_samples == 7


class AsksForThem:
    from trainvitals.diagnostics.base import Needs

    needs = Needs.HELDOUT_FEATURES

    def captured_layers(self):
        return ("last",)


def test_without_a_heldout_probe_there_are_neither():
    model, x, y = problem()
    _, snapshot = snapshot_of(model, loss=F.cross_entropy, train=(x, y))
    for name in ("heldout_features", "heldout_sample_losses"):
        with bystander(model), pytest.raises(Missing, match="no held-out probe"):
            _ = getattr(snapshot, name)
