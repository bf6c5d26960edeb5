"""Collapse against loops over classes, numpy's pseudo-inverse at fixed rank, and an exact simplex."""

import numpy as np
import pytest
import torch
from fake_snapshot import FakeSnapshot, evaluation, with_features
from naive import collapse

from trainvitals.diagnostics.base import Classifier, Missing
from trainvitals.diagnostics.neural_collapse import (
    NearestClassMean,
    SelfDuality,
    SimplexGeometry,
    WithinClassVariability,
)

ALL = (WithinClassVariability(), SimplexGeometry(), SelfDuality(), NearestClassMean())
SIZES = (5, 9, 3, 7)  # samples per class


def problem(C=4, D=6, sizes=SIZES, seed=0, noise=0.5):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(C), sizes))
    means = rng.normal(size=(C, D)) + 3.0
    features = means[labels] + noise * rng.normal(size=(len(labels), D))
    return features, labels, rng.normal(size=(C, D)) + means


def simplex(C=5, D=8, seed=0):
    """C unit vectors in D dimensions at the maximal equal angle, turned at random."""
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(D, D)))
    return np.sqrt(C / (C - 1)) * (np.eye(C) - 1 / C) @ rotation[:C]


def snapshot_of(features, labels, weight, dtype=torch.float64):
    return with_features(torch.tensor(features, dtype=dtype), torch.tensor(labels), torch.tensor(weight, dtype=dtype))


def measured(*problem, **options):
    snapshot = snapshot_of(*problem, **options)
    nc2 = SimplexGeometry().measure(snapshot)
    values = {d.name: d.measure(snapshot) for d in ALL if d.name != "nc2"}
    return values | {f"nc2.{part}": reading for part, reading in nc2.items()}


@pytest.mark.parametrize(("C", "D", "sizes"), [(4, 6, SIZES), (2, 3, (4, 8)), (4, 3, SIZES), (3, 40, (2, 2, 3))])
@pytest.mark.parametrize("seed", [0, 1])
def test_numbers_equal_the_definitions(C, D, sizes, seed):
    given = problem(C, D, sizes, seed)
    found, expected = measured(*given), collapse(*given)
    for name, reading in found.items():
        assert reading.value == pytest.approx(expected[name], rel=1e-9), name
    details = found["nc1"].details
    assert details["times_c"] == pytest.approx(C * expected["nc1"], rel=1e-9)
    assert details["trace_ratio"] == pytest.approx(expected["trace_ratio"], rel=1e-9)
    assert details["cdnv"] == pytest.approx(expected["cdnv"], rel=1e-9)


def test_nc1_equals_numpys_pseudo_inverse_when_its_cut_is_at_the_rank():
    h, y, W = problem()
    M = np.stack([h[y == c].mean(0) for c in range(4)])
    deviations = [h[y == c] - M[c] for c in range(4)]
    within = sum(d.T @ d / len(d) for d in deviations) / 4
    between = np.cov(M.T, bias=True)
    expected = np.trace(within @ np.linalg.pinv(between, rcond=1e-8)) / 4
    assert measured(h, y, W)["nc1"].value == pytest.approx(expected, rel=1e-9)


def as_in_the_papers_notebook(h, y, W):
    """Papyan, Han, Donoho 2020 published a notebook; its formulas, written anew with matrices, for equal classes."""
    h, W = torch.tensor(h), torch.tensor(W)
    C, num = len(W), len(h)
    M = torch.stack([h[torch.tensor(y) == c].mean(0) for c in range(C)], 1)  # (D, C)
    centred = M - M.mean(1, keepdim=True)
    deviations = h.T - M[:, y]
    within, between = deviations @ deviations.T / num, centred @ centred.T / C
    U, sigma, _ = torch.linalg.svd(between)
    inverse = U[:, : C - 1] @ torch.diag(1 / sigma[: C - 1]) @ U[:, : C - 1].T

    def coherence(V):
        G = V.T @ V + 1 / (C - 1)
        return float((G - torch.diag(torch.diag(G))).abs().sum() / (C * (C - 1)))

    def spread(V):
        return float(V.norm(dim=0).std() / V.norm(dim=0).mean())  # of C − 1 degrees of freedom, as torch has it

    nearest = torch.cdist(h, M.T).argmin(1)
    return {
        "times_c": float(torch.trace(within @ inverse)),
        "nc2.norms_means": spread(centred), "nc2.norms_weights": spread(W.T),
        "nc2.angles_means": coherence(centred / centred.norm(dim=0)),
        "nc2.angles_weights": coherence(W.T / W.T.norm(dim=0)),
        "nc3": float((W.T / W.norm() - centred / centred.norm()).norm() ** 2),
        "nc4": 1 - float((nearest == (h @ W.T).argmax(1)).double().mean()),
    }  # fmt: skip


@pytest.mark.parametrize("C", [3, 4, 7])
def test_classes_of_one_size_give_the_numbers_of_the_papers_notebook(C):
    given = problem(C, 9, (6,) * C, seed=C)
    found, expected = measured(*given), as_in_the_papers_notebook(*given)
    assert found["nc1"].details["times_c"] == pytest.approx(expected.pop("times_c"), rel=1e-9)
    for name, value in expected.items():  # our spread is the population's: C degrees of freedom
        factor = np.sqrt((C - 1) / C) if "norms" in name else 1.0
        assert found[name].value == pytest.approx(factor * value, rel=1e-9, abs=1e-12), name


def test_float32_agrees():
    given = problem()
    expected = collapse(*given)
    for name, reading in measured(*given, dtype=torch.float32).items():
        assert reading.value == pytest.approx(expected[name], rel=1e-4), name


def same(one, other, names=None, rel=1e-9):
    for name in names or one:
        assert one[name].value == pytest.approx(other[name].value, rel=rel), name


def test_repeating_samples_changes_nothing():
    h, y, W = problem()
    twice = measured(np.concatenate([h, h, h]), np.concatenate([y, y, y]), W)
    same(twice, measured(h, y, W))


def test_repeating_the_samples_of_one_class_changes_nothing_but_nc4():
    h, y, W = problem()
    more = measured(np.concatenate([h, h[y == 1]]), np.concatenate([y, y[y == 1]]), W)
    plain = measured(h, y, W)
    same(more, plain, [name for name in plain if name != "nc4"])


def test_rotating_and_scaling_features_changes_nothing():
    h, y, W = problem()
    rotation, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(6, 6)))
    same(measured(h @ rotation * 7, y, W @ rotation * 0.1), measured(h, y, W))


def test_shifting_features_changes_nothing_of_the_means():
    h, y, W = problem()
    shifted, plain = measured(h + 100, y, W), measured(h, y, W)
    same(shifted, plain, [name for name in plain if name != "nc4"], rel=1e-7)


@pytest.mark.parametrize("C", [2, 5, 8])
def test_a_simplex_is_collapsed(C):
    vertices, labels = simplex(C), np.repeat(np.arange(C), 6)
    noise = 1e-5 * np.random.default_rng(0).normal(size=(6 * C, 8))
    found = measured(2 * vertices[labels] + noise, labels, 0.5 * vertices)
    assert 0 < found["nc1"].value < 1e-8
    for part in ("norms_means", "norms_weights", "angles_means", "angles_weights"):
        assert found[f"nc2.{part}"].value == pytest.approx(0, abs=1e-4)
    assert found["nc2.norms_weights"].value == pytest.approx(0, abs=1e-12)
    assert found["nc2.angles_weights"].value == pytest.approx(0, abs=1e-12)
    assert found["nc3"].value == pytest.approx(0, abs=1e-8)
    assert found["nc4"].value == 0.0


def test_tiny_between_directions_are_not_cut_by_a_tolerance():
    h, y, W = problem(noise=1e-4)
    h[:, 1:] *= 1e-3  # Σ_B spans nine decades
    assert measured(h, y, W)["nc1"].value == pytest.approx(collapse(h, y, W)["nc1"], rel=1e-4)


def test_opposite_weights_are_four_away():
    vertices, labels = simplex(), np.repeat(np.arange(5), 3)
    assert measured(vertices[labels], labels, -vertices)["nc3"].value == pytest.approx(4)


def test_nc4_is_against_the_network_and_not_the_labels():
    vertices, labels = simplex(), np.repeat(np.arange(5), 3)
    snapshot = snapshot_of(vertices[labels], labels, vertices[[1, 2, 3, 4, 0]])
    assert NearestClassMean().measure(snapshot).value == 1.0


def test_statistics_are_computed_once(monkeypatch):
    calls = []
    from trainvitals.diagnostics import neural_collapse

    plain = neural_collapse.class_statistics
    monkeypatch.setattr(neural_collapse, "class_statistics", lambda *a: calls.append(1) or plain(*a))
    measured(*problem())
    assert len(calls) == 1


def fails_for(snapshot, reason, diagnostics=ALL):
    for diagnostic in diagnostics:
        with pytest.raises(Missing, match=reason):
            diagnostic.measure(snapshot)


def test_one_class_is_missing():
    h, _, W = problem()
    fails_for(snapshot_of(h, np.zeros(len(h), dtype=int), W), "only one class in the probe batch")


def test_an_absent_class_is_named():
    h, y, W = problem()
    keep = (y != 2) & (y != 3)
    fails_for(snapshot_of(h[keep], y[keep], W), "no sample of class 2, 3 in the probe batch")


def test_features_that_are_not_a_matrix_are_missing():
    h, y, W = problem()
    snapshot = snapshot_of(h, y, W)
    snapshot.features = snapshot.features[:, 0]
    fails_for(snapshot, r"features have shape \(24,\), expected \(N, D\)")


def test_features_with_nan_are_missing():
    h, y, W = problem()
    h[3, 2] = np.nan
    fails_for(snapshot_of(h, y, W), "features hold NaN")


def test_no_classifier_and_regression_are_missing():
    h, y, W = problem()
    snapshot = snapshot_of(h, y, W)
    del snapshot.features
    fails_for(snapshot, "no features")
    fails_for(FakeSnapshot(train=evaluation(0.0, torch.zeros(4, 2), torch.zeros(4, 2))), "not class labels")


def test_a_last_layer_of_another_shape_is_missing_for_the_weights_alone():
    snapshot = snapshot_of(*problem())
    snapshot.classifier = Classifier("odd", torch.ones(7, 6), None)
    readings = SimplexGeometry().measure(snapshot)
    assert readings["norms_means"].missing is None
    assert readings["angles_means"].missing is None
    for part in ("norms_weights", "angles_weights"):
        assert "odd, has a weight of shape (7, 6)" in readings[part].missing
    fails_for(snapshot, "odd, has a weight of shape", [SelfDuality()])


def test_too_few_features_for_the_classes():
    h, y, W = problem(C=4, D=2)
    fails_for(snapshot_of(h, y, W), "4 class means in 2 features", [WithinClassVariability()])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_class_means_that_coincide_or_align_are_missing_for_nc1(dtype):
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(4), 8)
    spread = rng.normal(size=(8, 6))
    same_means = np.concatenate([spread[rng.permutation(8)] for _ in range(4)]) + 100  # equal up to rounding
    fails_for(snapshot_of(same_means, labels, np.eye(4, 6), dtype), "coincide or are aligned",
              [WithinClassVariability()])  # fmt: skip
    aligned = same_means + np.outer(labels, np.arange(6))
    fails_for(snapshot_of(aligned, labels, np.eye(4, 6), dtype), "they span 1 dimensions of 3",
              [WithinClassVariability()])  # fmt: skip


def test_zero_vectors_are_missing():
    h, y, W = problem()
    W[2] = 0
    readings = SimplexGeometry().measure(snapshot_of(h, y, W))
    assert "vector is zero" in readings["angles_weights"].missing
    assert readings["norms_weights"].missing is None
    zero = snapshot_of(h, y, 0 * W)
    assert "all vectors are zero" in SimplexGeometry().measure(zero)["norms_weights"].missing
    fails_for(zero, "classifier's weight is zero", [SelfDuality()])
