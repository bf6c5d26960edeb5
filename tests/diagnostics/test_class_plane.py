"""The plane of the class means against NumPy, and where it is not defined."""

import numpy as np
import pytest
import torch
from fake_snapshot import with_features

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.class_plane import ClassPlane
from trainvitals.store.intake import split_details


def measured(features, labels, weight=None, C=None):
    C = C or int(labels.max()) + 1
    weight = np.ones((C, features.shape[1])) if weight is None else weight
    return ClassPlane().measure(with_features(*(torch.tensor(part) for part in (features, labels, weight))))


def problem(C=4, D=6, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(C), [5 + c for c in range(C)]))
    features = (rng.normal(size=(C, D)) * 3 + 1)[labels] + 0.3 * rng.normal(size=(len(labels), D))
    return features, labels, rng.normal(size=(C, D))


@pytest.mark.parametrize(("C", "D"), [(4, 6), (3, 2), (10, 4)])
def test_the_plane_is_that_of_numpys_principal_axes(C, D):
    features, labels, weight = problem(C, D)
    reading = measured(features, labels, weight)
    means = np.stack([features[labels == c].mean(0) for c in range(C)])
    centre = means.mean(0)
    _, s, Vt = np.linalg.svd(means - centre)
    expected = (means - centre) @ Vt[:2].T
    signs = np.sign((reading.value.numpy() * expected).sum(0))
    assert reading.value.numpy() == pytest.approx(expected * signs, abs=1e-9)
    assert reading.details["shares"] == pytest.approx((s**2 / (s**2).sum())[:2])
    points = (features - centre) @ Vt[:2].T * signs
    assert reading.details["x"] == pytest.approx(points[:, 0], abs=1e-5)
    assert reading.details["y"] == pytest.approx(points[:, 1], abs=1e-5)
    assert reading.details["labels"].tolist() == labels.tolist()
    assert (reading.value[0] > 0).all()  # the first class fixes the sides


def test_the_rows_stand_at_the_scale_of_the_means():
    features, labels, _ = problem()
    means = np.stack([features[labels == c].mean(0) for c in range(4)])
    reading = measured(features, labels, 7.0 * (means - means.mean(0)) + 2.0)  # self-dual up to scale and offset
    rows = np.stack([reading.details["rows_x"], reading.details["rows_y"]], 1)
    assert rows == pytest.approx(reading.value.numpy(), abs=1e-9)


def test_two_classes_take_the_second_axis_from_within_the_classes():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 50)
    features = np.zeros((100, 3))
    features[:, 0] = np.where(labels == 0, -2.0, 2.0)
    features[:, 2] = np.tile([-1.0, 1.0], 50) + 1e-3 * rng.normal(size=100)
    reading = measured(features, labels)
    assert reading.value[:, 0].abs().numpy() == pytest.approx([2.0, 2.0], abs=1e-3)
    assert reading.value[:, 1].numpy() == pytest.approx([0.0, 0.0], abs=1e-3)
    assert np.abs(reading.details["y"]) == pytest.approx(np.ones(100), abs=0.01)
    assert reading.details["shares"].tolist() == pytest.approx([1.0, 0.0])


def test_of_a_large_probe_at_most_300_samples_are_kept_and_the_means_are_those_of_all():
    features, labels, _ = problem()
    features, labels = np.tile(features, (100, 1)), np.tile(labels, 100)
    many, few = measured(features, labels), measured(*problem()[:2])
    assert many.details["x"].shape == many.details["y"].shape == many.details["labels"].shape == (300,)
    assert many.value.numpy() == pytest.approx(few.value.numpy(), abs=1e-9)


def test_a_run_keeps_the_samples_and_the_rows():
    kept = split_details(measured(*problem()).details)
    assert {name for part in kept for name in part} == {"x", "y", "labels", "shares", "rows_x", "rows_y"}


@pytest.mark.parametrize(("features", "labels", "reason"), [
    (np.arange(4.0)[:, None], np.array([0, 0, 1, 1]), "one feature"),
    (np.ones((4, 3)), np.array([0, 1, 0, 1]), "coincide"),
    (np.ones((4, 3)), np.array([0, 0, 0, 0]), "only one class"),
], ids=["one feature", "coinciding", "one class"])  # fmt: skip
def test_without_a_plane_it_is_missing(features, labels, reason):
    with pytest.raises(Missing, match=reason):
        measured(features, labels, C=2)
