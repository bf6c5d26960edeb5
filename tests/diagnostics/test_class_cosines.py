"""Cosines between classes against loops, in the order of class sizes."""

import numpy as np
import pytest
import torch
from fake_snapshot import with_features
from naive import collapse

from trainvitals.diagnostics.base import Classifier, Missing
from trainvitals.diagnostics.class_cosines import ClassCosines, by_size, cosines

SIZES = [5, 20, 9, 9]
ORDER = [1, 2, 3, 0]
C, D = 4, 6


def problem(seed=0):
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(C), SIZES)
    return rng.normal(size=(C, D))[y] + 0.3 * rng.normal(size=(len(y), D)), y, rng.normal(size=(C, D))


def snapshot_of(h, y, W):
    return with_features(torch.as_tensor(h), torch.as_tensor(y), torch.as_tensor(W))


def in_loops(rows):
    """Mean and largest cosine of each row with the others, and all pairs, in the order of class sizes."""
    def cosine(a, b):
        return float(rows[a] @ rows[b] / np.linalg.norm(rows[a]) / np.linalg.norm(rows[b]))

    others = [[cosine(a, b) for b in ORDER if b != a] for a in ORDER]
    upper = [cosine(ORDER[i], ORDER[j]) for i in range(C) for j in range(i + 1, C)]
    return [np.mean(row) for row in others], [max(row) for row in others], upper


@pytest.mark.parametrize("seed", range(3))
def test_numbers_equal_loops_over_pairs(seed):
    h, y, W = problem(seed)
    means = np.stack([h[y == c].mean(0) for c in range(C)])
    found = ClassCosines().measure(snapshot_of(h, y, W))
    for part, rows in (("means", means - means.mean(0)), ("weights", W)):
        average, largest, upper = in_loops(rows)
        for name, expected in ((part, average), (f"{part}_largest", largest)):
            assert found[name].keys == ("1", "2", "3", "0")
            assert found[name].value.tolist() == pytest.approx(expected, rel=1e-9)
            assert found[name].details["num_samples"].tolist() == sorted(SIZES, reverse=True)
            assert found[name].details["cosines"].tolist() == pytest.approx(upper, rel=1e-9)


def test_they_agree_with_the_angles_of_nc2():
    h, y, W = problem()
    found = ClassCosines().measure(snapshot_of(h, y, W))
    expected = collapse(h, y, W)
    for part in ("means", "weights"):
        cosines = found[part].details["cosines"]
        assert float((cosines + 1 / (C - 1)).abs().mean()) == pytest.approx(expected[f"nc2.angles_{part}"], rel=1e-9)


def test_a_simplex_has_one_cosine_and_merged_rows_have_one():
    y = np.repeat(np.arange(C), SIZES)
    simplex = np.eye(C) - 1 / C
    W = np.eye(C)
    W[3] = W[0]
    found = ClassCosines().measure(snapshot_of(simplex[y], y, W))
    assert found["means"].value.tolist() == pytest.approx([-1 / 3] * C)
    assert found["means_largest"].value.tolist() == pytest.approx([-1 / 3] * C)
    assert found["weights_largest"].value.tolist() == pytest.approx([0, 0, 1, 1])  # classes 1, 2, 3, 0


def test_copies_of_samples_and_a_scale_and_rotation_change_nothing():
    h, y, W = problem()
    Q = np.linalg.qr(np.random.default_rng(1).normal(size=(D, D)))[0]
    plain = ClassCosines().measure(snapshot_of(h, y, W))
    other = ClassCosines().measure(snapshot_of(np.repeat(h, 3, 0) @ Q * 7, np.repeat(y, 3), W @ Q * 2))
    for name, reading in plain.items():
        assert other[name].value.tolist() == pytest.approx(reading.value.tolist(), rel=1e-9)


def test_many_classes_keep_no_matrix():
    y = np.repeat(np.arange(70), 2)
    found = ClassCosines().measure(snapshot_of(np.eye(70)[y], y, np.eye(70)))
    assert "cosines" not in found["means"].details
    assert found["means"].value.shape == (70,)


def test_missing_with_the_reason():
    h, y, W = problem()
    odd = snapshot_of(h, y, W)
    odd.classifier = Classifier("odd", torch.ones(7, 6), None)
    found = ClassCosines().measure(odd)
    assert found["means"].missing is None
    assert "odd, has a weight of shape (7, 6)" in found["weights"].missing
    absent = ClassCosines().measure(snapshot_of(h[y != 2], y[y != 2], W))
    assert "no sample of class 2" in absent["means"].missing
    assert absent["weights"].missing is None
    assert absent["weights"].keys[-1] == "2"
    W[1] = 0
    assert "a class's vector is zero" in ClassCosines().measure(snapshot_of(h, y, W))["weights"].missing
    regression = with_features(torch.ones(8, 3), torch.zeros(8, 2), torch.zeros(2, 3))
    for reading in ClassCosines().measure(regression).values():
        assert "not class labels" in reading.missing
    with pytest.raises(Missing, match="only one class"):
        cosines(torch.ones(1, 6))


def test_equal_sizes_stay_in_order():
    assert by_size(torch.tensor([2, 2, 3, 2])).tolist() == [2, 0, 1, 3]
