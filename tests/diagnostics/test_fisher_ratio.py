"""Fisher's ratio against inverses of D x D matrices, and its invariance to linear maps."""

import numpy as np
import pytest
import torch
from fake_snapshot import with_features

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.fisher_ratio import FisherRatio

C = 3


def problem(N=60, D=5, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(N) % C
    y[: N // 4] = 0  # classes of unlike size
    return rng.normal(size=(C, D))[y] + rng.normal(size=(N, D)) * np.arange(1, D + 1), y


def measured(h, y):
    h = torch.as_tensor(h)
    return FisherRatio().measure(with_features(h, torch.as_tensor(y), torch.zeros(C, h.shape[1], dtype=h.dtype))).value


def reference(h, y):
    means = np.stack([h[y == c].mean(0) for c in range(C)])
    within = sum(np.cov(h[y == c].T, bias=True) for c in range(C)) / C
    return np.trace(np.linalg.inv(within) @ np.cov(means.T, bias=True))


@pytest.mark.parametrize("seed", range(3))
def test_the_ratio_equals_that_of_the_matrices(seed):
    h, y = problem(seed=seed)
    assert measured(h, y) == pytest.approx(reference(h, y), rel=1e-9)


def test_an_invertible_map_dead_units_and_copies_of_units_change_nothing():
    h, y = problem()
    A = np.random.default_rng(5).normal(size=(5, 5))
    expected = reference(h, y)
    for changed in (h @ A + 3.0, np.hstack([h, np.zeros_like(h)]), np.hstack([h, h[:, :2]]), np.repeat(h, 2, 0)):
        labels = np.repeat(y, 2) if len(changed) > len(y) else y
        assert measured(changed, labels) == pytest.approx(expected, rel=1e-7)


def test_float32_features_give_the_same_to_their_rounding():
    h, y = problem()
    assert measured(h.astype(np.float32), y) == pytest.approx(reference(h, y), rel=1e-4)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda h, y: (np.random.default_rng(1).normal(size=(len(y), 80)), y), "within classes the features vary in"),
        (lambda h, y: (np.eye(C)[y] * 1.0, y), "within classes the features vary in 0 of the 2 directions"),
        (lambda h, y: (np.ones_like(h), y), "the features are the same for every sample"),
        (lambda h, y: (h, np.zeros_like(y)), "only one class"),
        (lambda h, y: (h * np.nan, y), "NaN or Inf"),
    ],
    ids=["few samples", "collapsed", "constant", "one class", "nan"],
)
def test_missing_with_the_reason(change, reason):
    with pytest.raises(Missing, match=reason):
        measured(*change(*problem()))
