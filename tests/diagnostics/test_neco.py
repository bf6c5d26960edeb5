"""NECO against scikit-learn's scaler and principal components, as the authors' code uses them."""

import numpy as np
import pytest
import torch
from fake_snapshot import FakeSnapshot
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from trainvitals.diagnostics.base import Evaluation, Missing
from trainvitals.diagnostics.neco import Neco

C, D = 4, 7


def features(N, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    means = np.random.default_rng(99).normal(size=(C, D))
    return means[np.arange(N) % C] + 0.3 * rng.normal(size=(N, D)) + shift


def evaluation(N):
    return Evaluation(0.0, torch.zeros(N, C), torch.arange(N) % C, N)


def snapshot_of(train, heldout=None):
    found = {"features": torch.as_tensor(train), "train": evaluation(len(train))}
    if heldout is not None:
        found |= {"heldout_features": torch.as_tensor(heldout), "heldout": evaluation(len(heldout))}
    return FakeSnapshot(**found)


def reference(train, other, dim):
    scaler = StandardScaler().fit(train)
    pca = PCA(train.shape[1]).fit(scaler.transform(train))
    h = scaler.transform(other)
    return np.linalg.norm(pca.transform(h)[:, :dim], axis=1) / np.linalg.norm(h, axis=1)


@pytest.mark.parametrize("dim", [None, 1, 2, 7])
def test_both_parts_equal_scikit_learns(dim):
    train, heldout = features(40, 0), features(30, 1, 0.5)
    found = Neco(dim=dim).measure(snapshot_of(train, heldout))
    for part, other in (("train", train), ("heldout", heldout)):
        ratios = reference(train, other, dim or C - 1)
        assert found[part].value == pytest.approx(ratios.mean(), rel=1e-9)
        assert found[part].error == pytest.approx(ratios.std(ddof=1) / len(ratios) ** 0.5, rel=1e-9)


def test_scaling_and_shifting_each_feature_changes_nothing():
    train, heldout = features(40, 0), features(30, 1)
    scales, shifts = np.arange(1, D + 1), np.arange(D) - 3.0
    plain = Neco().measure(snapshot_of(train, heldout))
    other = Neco().measure(snapshot_of(train * scales + shifts, heldout * scales + shifts))
    for part, reading in plain.items():
        assert other[part].value == pytest.approx(reading.value, rel=1e-9)


def test_all_directions_hold_all_and_other_data_lies_outside():
    train = features(40, 0)
    assert Neco(dim=D).measure(snapshot_of(train))["train"].value == pytest.approx(1)
    strange = 3 * np.random.default_rng(3).normal(size=(30, D))
    found = Neco().measure(snapshot_of(train, strange))
    assert found["heldout"].value < found["train"].value - 3 * found["heldout"].error


def test_a_constant_feature_is_kept_as_it_is():
    train, heldout = features(40, 0), features(30, 1)
    train[:, 2], heldout[:, 2] = 5.0, 6.0
    found = Neco(dim=3).measure(snapshot_of(train, heldout))
    assert found["heldout"].value == pytest.approx(reference(train, heldout, 3).mean(), rel=1e-9)


def test_missing_with_the_reason():
    train = features(40, 0)
    assert Neco().measure(snapshot_of(train))["heldout"].missing == "no heldout_features"
    with pytest.raises(Missing, match="7 directions, fewer than d = 8"):
        Neco(dim=8).measure(snapshot_of(train))
    with pytest.raises(Missing, match="the same for every sample"):
        Neco().measure(snapshot_of(np.ones_like(train)))
    numbers = Evaluation(0.0, torch.zeros(40), torch.zeros(40), 40)
    regression = FakeSnapshot(features=torch.as_tensor(train), train=numbers)
    with pytest.raises(Missing, match="not a classifier"):
        Neco().measure(regression)
    assert Neco(dim=2).measure(regression)["train"].missing is None
    whole = np.random.default_rng(0).integers(-4, 5, size=(20, D)).astype(float)
    balanced = np.concatenate([whole, -whole])  # a mean of exactly zero
    found = Neco(dim=2).measure(snapshot_of(balanced, np.zeros((4, D))))
    assert "are the mean of the train" in found["heldout"].missing
    with pytest.raises(ValueError, match="dim=0"):
        Neco(dim=0)
