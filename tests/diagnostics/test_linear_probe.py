"""The linear probe against scikit-learn's ridge regression and a plain solve of the normal equations."""

import numpy as np
import pytest
import torch
from fake_snapshot import FakeSnapshot
from sklearn.linear_model import Ridge
from torch import nn

import trainvitals as tv
from trainvitals.diagnostics.base import Evaluation, Missing
from trainvitals.diagnostics.generalization_gap import share_error
from trainvitals.diagnostics.linear_probe import LinearProbe, fitted


def problem(N=50, C=3, D=6, seed=0, noise=1.5):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, C, N)
    centres = np.random.default_rng(99).normal(size=(C, D))
    return torch.tensor(centres[y] + noise * rng.normal(size=(N, D)) + 3), torch.tensor(y)


def snapshot_of(train, heldout, C=3):
    def evaluation(y):
        return Evaluation(0.0, torch.zeros(len(y), C), y, len(y))

    return FakeSnapshot(
        features=train[0], train=evaluation(train[1]), heldout_features=heldout[0], heldout=evaluation(heldout[1])
    )


@pytest.mark.parametrize(("N", "D"), [(50, 6), (20, 45)])
@pytest.mark.parametrize("ridge", [1e-3, 0.01, 1.0])
def test_weights_and_offsets_are_scikit_learns(N, D, ridge):
    h, y = problem(N, D=D)
    penalty = ridge * float((h - h.mean(0)).square().sum()) / D
    theirs = Ridge(alpha=penalty, solver="svd").fit(h.numpy(), np.eye(3)[y])
    ours = fitted(h, y, 3, ridge)
    assert ours.weight.T.numpy() == pytest.approx(theirs.coef_, rel=1e-8, abs=1e-12)
    assert (ours.offset - ours.centre @ ours.weight).numpy() == pytest.approx(theirs.intercept_, rel=1e-8, abs=1e-10)


def test_the_reading_is_the_heldout_accuracy_of_that_fit():
    train, heldout = problem(), problem(40, seed=1)
    reading = LinearProbe().measure(snapshot_of(train, heldout))
    penalty = 0.01 * float((train[0] - train[0].mean(0)).square().sum()) / 6
    theirs = Ridge(alpha=penalty).fit(train[0].numpy(), np.eye(3)[train[1]])
    expected, on_train = ((theirs.predict(h.numpy()).argmax(1) == y.numpy()).mean() for h, y in (heldout, train))
    assert reading.value == pytest.approx(expected)
    assert reading.details["train"] == pytest.approx(on_train)
    assert reading.error == pytest.approx(share_error(expected, 40))
    assert 0.4 < expected < 1  # above chance, and not so easy that anything passes


def test_shift_scale_rotation_and_repeated_samples_change_nothing():
    train, heldout = problem(), problem(40, seed=1)
    Q = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    W = fitted(*train, 3, 0.01).weight
    moved = fitted(100 * train[0] @ Q + 7, train[1], 3, 0.01).weight
    assert (100 * Q @ moved).numpy() == pytest.approx(W.numpy(), rel=1e-8, abs=1e-10)
    twice = fitted(torch.cat([train[0]] * 2), torch.cat([train[1]] * 2), 3, 0.01).weight
    assert twice.numpy() == pytest.approx(W.numpy(), rel=1e-9)
    plain = LinearProbe().measure(snapshot_of(train, heldout)).value
    scaled = snapshot_of((100 * train[0] @ Q, train[1]), (100 * heldout[0] @ Q, heldout[1]))
    assert LinearProbe().measure(scaled).value == plain


def test_the_networks_own_classifier_does_not_enter():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    x, y = torch.randn(60, 4), torch.arange(60) % 3
    arguments = {"loss": nn.functional.cross_entropy, "batch": (x[:30], y[:30]), "heldout": (x[30:], y[30:]),
                 "what": ["probe"]}  # fmt: skip
    before = tv.measure(model, **arguments)
    with torch.no_grad():
        model[2].weight.normal_()
        model[2].bias.normal_()
    after = tv.measure(model, **arguments)
    for name in ("probe.linear", "probe.knn"):
        assert before[name].value == after[name].value
    with torch.no_grad():
        h = model[:2](x).double()
    expected = fitted(h[:30], y[:30], 3, 0.01).accuracy(h[30:], y[30:])
    assert before["probe.linear"].value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("train", "heldout", "reason"),
    [
        ((torch.randn(9, 6), torch.ones(9, dtype=torch.long)), problem(), "only one class"),
        ((torch.ones(9, 6), torch.arange(9) % 3), problem(), "same for every sample"),
        ((torch.zeros(9, 6), torch.arange(9) % 3), problem(), "all units of the layer are dead"),
        ((torch.randn(9, 6), torch.zeros(9)), problem(), "targets are not class labels"),
        (problem(), (torch.randn(9, 6), torch.zeros(9)), "targets are not class labels"),
        (problem(), (torch.randn(9, 4), torch.arange(9) % 3), "expected (M, D) with D = 6"),
        (problem(), (torch.randn(8, 6), torch.arange(9) % 3), "differ in number"),
    ],
    ids=["one class", "constant", "dead", "regression", "heldout regression", "width", "number"],
)
def test_missing_with_the_reason(train, heldout, reason):
    with pytest.raises(Missing) as caught:
        LinearProbe().measure(snapshot_of(train, heldout))
    assert reason in str(caught.value)


@pytest.mark.parametrize("wrong", [0, -1.0, float("nan"), float("inf")])
def test_ridge_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match="expected ridge > 0"):
        LinearProbe(ridge=wrong)
