"""CKA against Song's formula, against the mean over all quadruples of samples, and its invariances."""

from itertools import permutations

import pytest
import torch
from fake_snapshot import FakeSnapshot

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.cka import FeatureCka, LayerCka, linear_cka, u_centred


def features(N, D, seed=0):
    return torch.randn(N, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair(N=12, seed=0):
    X = features(N, 4, seed)
    return X, X[:, :2] @ features(2, 5, seed + 1) + 0.5 * features(N, 5, seed + 2)


def hsic_of_song(K, L):
    """The unbiased estimator of Song et al., as printed."""
    n, one = len(K), torch.ones(len(K), dtype=K.dtype)
    K, L = K - K.diag().diag(), L - L.diag().diag()
    first = (K @ L).trace()
    second = (one @ K @ one) * (one @ L @ one) / ((n - 1) * (n - 2))
    return (first + second - 2 / (n - 2) * (one @ K @ L @ one)) / (n * (n - 3))


def hsic_over_quadruples(K, L):
    """The U-statistic itself: the mean over ordered quadruples of distinct samples."""
    terms = [K[i, j] * (L[i, j] + L[q, r] - 2 * L[i, q]) for i, j, q, r in permutations(range(len(K)), 4)]
    return sum(terms) / len(terms)


def cka_by(hsic, X, Y):
    K, L = X @ X.T, Y @ Y.T
    return float(hsic(K, L) / (hsic(K, K) * hsic(L, L)).sqrt())


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize("N", [4, 12, 40])
def test_cka_equals_songs_formula(N, seed):
    X, Y = pair(N, seed)
    assert linear_cka(X, Y) == pytest.approx(cka_by(hsic_of_song, X, Y), rel=1e-9)


@pytest.mark.parametrize("N", [4, 7])
def test_cka_equals_the_mean_over_quadruples(N):
    X, Y = pair(N)
    assert linear_cka(X, Y) == pytest.approx(cka_by(hsic_over_quadruples, X, Y), rel=1e-9)


def test_rotation_scale_and_shift_change_nothing():
    X, Y = pair()
    Q = torch.linalg.qr(features(4, 4, 9))[0]
    assert linear_cka(7 * X @ Q + 3, Y) == pytest.approx(linear_cka(X, Y), rel=1e-10)
    assert linear_cka(X, 7 * X @ Q + 3) == pytest.approx(1, abs=1e-12)
    assert linear_cka(Y, X) == pytest.approx(linear_cka(X, Y), rel=1e-12)


def test_the_order_of_samples_changes_nothing():
    X, Y = pair()
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
    assert linear_cka(X[order], Y[order]) == pytest.approx(linear_cka(X, Y), rel=1e-12)


def test_hsic_of_unrelated_features_has_mean_zero_even_with_few_samples():
    X = features(8, 30)
    U = u_centred(X)
    found = torch.stack([(U * u_centred(features(8, 30, seed))).sum() for seed in range(1, 401)])
    assert abs(float(found.mean())) < 4 * float(found.std()) / 20  # four standard errors; the plug-in gives 0.8


def test_large_shifts_lose_no_digits():
    X, Y = pair()
    assert linear_cka(X + 1e6, Y) == pytest.approx(linear_cka(X, Y), rel=1e-6)


def at(step, h):
    return FakeSnapshot(step=step, features=h, activations=h if isinstance(h, dict) else {})


def test_features_are_compared_with_the_first_and_the_previous():
    steps = [features(12, 5, seed) for seed in range(3)]
    diagnostic = FeatureCka()
    first = diagnostic.measure(at(0, steps[0]))
    assert all("first measurement" in first[part].missing for part in ("initial", "previous"))
    diagnostic.measure(at(10, steps[1]))
    third = diagnostic.measure(at(20, steps[2]))
    assert third["initial"].value == pytest.approx(linear_cka(steps[2], steps[0]))
    assert third["previous"].value == pytest.approx(linear_cka(steps[2], steps[1]))
    assert (third["initial"].details["step"], third["previous"].details["step"]) == (0, 10)


def test_layers_are_compared_by_name_and_with_their_neighbours():
    one, two = ({"a": features(12, 5, s), "b": features(12, 3, s + 7).view(12, 3, 1), "c": features(12, 2, s + 9)}
                for s in (0, 1))  # fmt: skip
    diagnostic = LayerCka(max_samples=10)
    found = diagnostic.measure(at(0, one))
    assert found["initial"].missing
    assert found["previous"].missing
    assert found["adjacent"].keys == ("a → b", "b → c")
    expected = [linear_cka(one[x][:10], one[y][:10]) for x, y in ("ab", "bc")]
    assert found["adjacent"].value.tolist() == pytest.approx(expected)
    found = diagnostic.measure(at(10, two))
    assert found["initial"].keys == ("a", "b", "c")
    expected = [linear_cka(two[name][:10], one[name][:10]) for name in "abc"]
    assert found["initial"].value.tolist() == found["previous"].value.tolist() == pytest.approx(expected)


def test_a_layer_without_a_value_is_left_out_and_named():
    layers = {"a": features(8, 3), "dead": torch.zeros(8, 3), "b": features(8, 3, 1)}
    diagnostic = LayerCka()
    found = diagnostic.measure(at(0, layers))
    assert found["adjacent"].keys == ("a → b",)
    assert found["adjacent"].details["left_out"] == {"dead": "the features are the same for every sample"}
    found = diagnostic.measure(at(1, {"dead": features(8, 3)}))
    assert "no layer has features to compare" in found["initial"].missing
    assert "only one layer" in found["adjacent"].missing


@pytest.mark.parametrize(
    ("h", "reason"),
    [
        (torch.randn(3, 5), "3 samples"),
        (torch.zeros(8, 5), "same for every sample"),
        (torch.full((8, 5), 0.1) + 1e-9 * torch.randn(8, 5), "same for every sample"),
        (torch.full((8, 5), torch.nan), "NaN or Inf"),
        (torch.eye(8), "equally far apart"),
    ],
    ids=["three samples", "dead", "constant", "nan", "simplex"],
)
def test_missing_with_the_reason(h, reason):
    with pytest.raises(Missing, match=reason):
        FeatureCka().measure(at(0, h))
    with pytest.raises(Missing, match=reason):
        LayerCka().measure(at(0, {"a": h}))


def test_what_is_missing_once_is_not_remembered():
    diagnostic = FeatureCka()
    with pytest.raises(Missing):
        diagnostic.measure(at(0, torch.zeros(8, 5)))
    diagnostic.measure(at(1, features(8, 5)))
    assert diagnostic.measure(at(2, features(8, 5)))["initial"].value == pytest.approx(1)


def test_without_non_linearities_layers_have_none():
    with pytest.raises(Missing, match="no non-linearity"):
        LayerCka().measure(at(0, {}))


@pytest.mark.parametrize("wrong", [3, 10.5, True])
def test_max_samples_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match="expected a whole number of at least 4"):
        LayerCka(max_samples=wrong)
