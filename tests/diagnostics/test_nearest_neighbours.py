"""Purity and the neighbour probe against loops over samples and scikit-learn's classifier."""

import numpy as np
import pytest
import torch
from fake_snapshot import FakeSnapshot
from sklearn.neighbors import KNeighborsClassifier

from trainvitals.diagnostics.base import Evaluation, Missing
from trainvitals.diagnostics.generalization_gap import share_error
from trainvitals.diagnostics.nearest_neighbours import KnnProbe, KnnPurity, neighbour_weights, vote_accuracy


def problem(N=40, C=3, D=5, seed=0, noise=1.5):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, C, N)
    centres = np.random.default_rng(99).normal(size=(C, D))
    return torch.tensor(centres[y] + noise * rng.normal(size=(N, D))), torch.tensor(y)


def evaluation(y, C=3):
    return Evaluation(0.0, torch.zeros(len(y), C), y, len(y))


def snapshot_of(train, heldout=None):
    found = {"features": train[0], "train": evaluation(train[1])}
    if heldout is not None:
        found |= {"heldout_features": heldout[0], "heldout": evaluation(heldout[1])}
    return FakeSnapshot(**found)


def purity_by_loops(h, y, k):
    shares = []
    for i in range(len(h)):
        others = sorted((float(((h[i] - h[j]) ** 2).sum()), j) for j in range(len(h)) if j != i)
        shares.append(sum(int(y[j] == y[i]) for _, j in others[:k]) / k)
    return sum(shares) / len(shares)


@pytest.mark.parametrize("k", [1, 4, 10])
@pytest.mark.parametrize("seed", [0, 1])
def test_purity_equals_a_loop_over_samples(k, seed):
    h, y = problem(seed=seed)
    assert KnnPurity(k=k).measure(snapshot_of((h, y))).value == pytest.approx(purity_by_loops(h, y, k))


@pytest.mark.parametrize("k", [1, 3, 7])
def test_the_probe_is_scikit_learns_classifier_where_no_votes_tie(k):
    train, heldout = (problem(60, C=2), problem(35, C=2, seed=1))  # two classes and odd k: no ties
    reading = KnnProbe(k=k).measure(snapshot_of(train, heldout))
    theirs = KNeighborsClassifier(k).fit(*map(np.asarray, train)).score(*map(np.asarray, heldout))
    assert reading.value == pytest.approx(theirs)
    assert reading.error == pytest.approx(share_error(theirs, 35))


def test_shift_scale_rotation_and_order_change_nothing():
    (h, y), heldout = problem(), problem(seed=1)
    Q = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    order = torch.randperm(len(h), generator=torch.Generator().manual_seed(0))
    plain = snapshot_of((h, y), heldout)
    moved = snapshot_of((3 * h[order] @ Q + 5, y[order]), (3 * heldout[0] @ Q + 5, heldout[1]))
    for diagnostic in (KnnPurity(), KnnProbe()):
        assert diagnostic.measure(moved).value == pytest.approx(diagnostic.measure(plain).value)


def test_neighbours_at_equal_distance_share_the_last_places():
    h, y = torch.tensor([[0.0], [1.0], [-1.0], [9.0]]), torch.tensor([0, 0, 1, 1])
    shares = [0.5, 1.0, 0.0, 0.0]  # of 0: both at distance 1; of 1: 0; of -1: 0; of 9: 1
    assert KnnPurity(k=1).measure(snapshot_of((h, y))).value == pytest.approx(sum(shares) / 4)


def test_weights_sum_to_k_and_ties_of_votes_share_the_sample():
    d = torch.tensor([[0.0, 1.0, 1.0, 1.0, 2.0]])
    assert neighbour_weights(d, 3)[0].tolist() == pytest.approx([1, 2 / 3, 2 / 3, 2 / 3, 0])
    assert neighbour_weights(d, 5)[0].tolist() == [1, 1, 1, 1, 1]
    thirds = torch.full((1, 3), 1 / 3, dtype=torch.float64)
    assert vote_accuracy(torch.cat([thirds, thirds]), torch.tensor([0, 2])) == pytest.approx(1 / 3)


def test_collapsed_features_are_pure_and_chance_is_that_of_random_neighbours():
    y = torch.arange(24) % 3
    reading = KnnPurity(k=7).measure(snapshot_of((torch.eye(3)[y], y)))
    assert reading.value == 1.0
    assert reading.details["chance"] == pytest.approx(7 / 23)


@pytest.mark.parametrize("diagnostic", [KnnPurity(), KnnProbe()], ids=["purity", "probe"])
@pytest.mark.parametrize(
    ("train", "reason"),
    [
        ((torch.zeros(20, 3), torch.zeros(20, dtype=torch.long)), "all units of the layer are dead"),
        ((torch.randn(20, 3), torch.zeros(20)), "targets are not class labels"),
        ((torch.randn(9, 3), torch.zeros(9, dtype=torch.long)), "9 samples"),
        ((torch.full((20, 3), torch.nan), torch.zeros(20, dtype=torch.long)), "NaN or Inf"),
    ],
    ids=["dead", "regression", "few", "nan"],
)
def test_missing_with_the_reason(diagnostic, train, reason):
    with pytest.raises(Missing, match=reason):
        diagnostic.measure(snapshot_of(train, problem(D=3)))


@pytest.mark.parametrize(
    ("features", "reason"),
    [
        (torch.randn(40, 4), "expected (M, D) with D = 5"),
        (torch.full((40, 5), torch.inf), "held-out features hold NaN"),
    ],
    ids=["width", "inf"],
)
def test_heldout_features_that_do_not_fit_are_missing(features, reason):
    with pytest.raises(Missing) as caught:
        KnnProbe().measure(snapshot_of(problem(), (features, problem()[1])))
    assert reason in str(caught.value)


def test_without_a_heldout_probe_the_reason_is_the_snapshots():
    with pytest.raises(Missing, match="no heldout"):
        KnnProbe().measure(snapshot_of(problem()))


@pytest.mark.parametrize("cls", [KnnPurity, KnnProbe])
@pytest.mark.parametrize("wrong", [0, 2.5, True])
def test_k_out_of_range_is_refused(cls, wrong):
    with pytest.raises(ValueError, match="expected a whole number of at least 1"):
        cls(k=wrong)
