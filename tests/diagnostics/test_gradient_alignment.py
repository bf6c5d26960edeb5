"""Sums against explicit pairs of gradients; the noise scale against a known covariance."""

import math

import pytest
import torch
from fake_snapshot import FakeSnapshot, with_gradients, with_steps
from naive import pair_cosines

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.gradient_alignment import (
    GradientCoherence,
    GradientCosine,
    GradientNoiseScale,
    GradientNorm,
    SuccessiveCosine,
)
from trainvitals.diagnostics.gradient_sums import NUM_BLOCKS


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_norms_are_those_of_each_tensor():
    gradient = {"a": normal(3, 4), "b": normal(5, seed=1).float()}
    reading = GradientNorm().measure(FakeSnapshot(gradient=gradient))
    assert reading.keys == ("a", "b")
    expected = [math.sqrt(sum(float(v) ** 2 for v in t.reshape(-1))) for t in gradient.values()]
    assert reading.value.tolist() == pytest.approx(expected, rel=1e-12)
    assert reading.details["total"] == pytest.approx(math.hypot(*expected))


def test_a_gradient_with_nan_gives_nan_as_measured():
    reading = GradientNorm().measure(FakeSnapshot(gradient={"a": torch.tensor([torch.nan])}))
    assert math.isnan(reading.value[0])


def test_cosine_equals_the_mean_over_explicit_pairs():
    G, labels = normal(11, 7) + 0.3, torch.arange(11) % 3
    reading = GradientCosine().measure(with_gradients(G, labels, 3))
    assert reading.value == pytest.approx(pair_cosines(G), rel=1e-12)
    within = pair_cosines(G, lambda i, j: labels[i] == labels[j])
    between = pair_cosines(G, lambda i, j: labels[i] != labels[j])
    assert reading.details["within_classes"] == pytest.approx(within, rel=1e-12)
    assert reading.details["between_classes"] == pytest.approx(between, rel=1e-12)


def test_cosine_leaves_zero_gradients_out_and_counts_them():
    G, labels = normal(8, 5), torch.arange(8) % 2
    padded = torch.cat([G, torch.zeros(2, 5, dtype=G.dtype)])
    reading = GradientCosine().measure(with_gradients(padded, torch.cat([labels, labels[:2]]), 2))
    alone = GradientCosine().measure(with_gradients(G, labels, 2))
    assert reading.value == pytest.approx(alone.value, rel=1e-12)
    assert reading.details["within_classes"] == pytest.approx(alone.details["within_classes"], rel=1e-12)
    assert reading.details["num_zero"] == 2


def test_cosine_does_not_depend_on_the_lengths_of_gradients():
    G = normal(9, 6)
    scaled = G * torch.logspace(-8, 8, 9, dtype=torch.float64)[:, None]
    one, other = (GradientCosine().measure(with_gradients(g)).value for g in (G, scaled))
    assert one == pytest.approx(other, rel=1e-10)


def test_cosine_says_why_it_has_no_classes():
    assert "no class labels" in GradientCosine().measure(with_gradients(normal(4, 3))).details["without_classes"]
    reading = GradientCosine().measure(with_gradients(normal(4, 3), torch.arange(4) % 2, 2, optional_bytes=0))
    assert "per class" in reading.details["without_classes"]


def test_a_class_of_one_sample_has_no_pair_within():
    details = GradientCosine().measure(with_gradients(normal(2, 3), torch.arange(2), 2)).details
    assert "within_classes" not in details
    assert "between_classes" in details


def test_orthogonal_and_identical_gradients():
    orthogonal = with_gradients(torch.diag(torch.tensor([1.0, 5.0, 0.1, 2.0])))
    assert GradientCosine().measure(orthogonal).value == pytest.approx(0, abs=1e-14)
    assert GradientCoherence().measure(orthogonal).value == pytest.approx(1)
    identical = with_gradients(normal(1, 6).expand(10, 6))
    assert GradientCosine().measure(identical).value == pytest.approx(1)
    assert GradientCoherence().measure(identical).value == pytest.approx(10)
    opposite = with_gradients(torch.tensor([[1.0, 2.0], [-1.0, -2.0]]))
    assert GradientCosine().measure(opposite).value == pytest.approx(-1)
    assert GradientCoherence().measure(opposite).value == pytest.approx(0)


def test_coherence_equals_its_definition():
    G = normal(13, 5) + 1
    reading = GradientCoherence().measure(with_gradients(G))
    mean_square = sum(float(g @ g) for g in G) / 13
    assert reading.value == pytest.approx(13 * float(G.mean(0) @ G.mean(0)) / mean_square, rel=1e-12)
    assert reading.details["per_sample"] == pytest.approx(reading.value / 13)


def test_noise_scale_equals_the_sample_covariance():
    G = normal(20, 6) + 2
    reading = GradientNoiseScale().measure(with_gradients(G))
    trace = float(torch.cov(G.T).trace())
    square = float(G.mean(0).square().sum()) - trace / 20
    assert reading.details["trace_covariance"] == pytest.approx(trace, rel=1e-12)
    assert reading.details["gradient_norm_squared"] == pytest.approx(square, rel=1e-12)
    assert reading.value == pytest.approx(trace / square, rel=1e-12)


# The signal from strong (noise scale 1.8) to weak (78, more than the samples); 50 and 64 samples make
# blocks of unequal and of equal size, 16 an ordinary jackknife.
@pytest.mark.parametrize(("signal", "num_samples"), [(1.0, 50), (1.0, 16), (0.3, 64), (0.15, 64)])
def test_noise_scale_lies_within_twice_its_error(signal, num_samples):
    scales = torch.linspace(0.5, 2, 50, dtype=torch.float64)
    truth = float(scales.square().sum()) / (50 * signal**2)
    inside, missing = 0, 0
    for seed in range(40):
        G = signal + scales * normal(num_samples, 50, seed=seed)
        try:
            reading = GradientNoiseScale().measure(with_gradients(G))
        except Missing:
            missing += 1
            continue
        inside += abs(reading.value - truth) <= 2 * reading.error
    assert inside >= 36
    assert missing <= 1


def test_the_error_is_the_spread_of_the_estimate():
    scales = torch.linspace(0.5, 2, 50, dtype=torch.float64)
    readings = [GradientNoiseScale().measure(with_gradients(0.3 + scales * normal(96, 50, seed=s))) for s in range(60)]
    values = torch.tensor([r.value for r in readings])
    errors = torch.tensor([r.error for r in readings])
    assert 0.7 < float(errors.mean() / values.std()) < 1.4


def test_the_error_equals_leaving_each_sample_out():
    G = normal(NUM_BLOCKS, 6) + 1.5

    def estimate(rows):
        trace = float(torch.cov(rows.T).trace())
        return trace, float(rows.mean(0).square().sum()) - trace / len(rows)

    trace, square = estimate(G)
    left = [estimate(torch.cat([G[:k], G[k + 1 :]])) for k in range(NUM_BLOCKS)]
    linear = torch.tensor([t - trace / square * s for t, s in left], dtype=torch.float64)
    variance = (NUM_BLOCKS - 1) / NUM_BLOCKS * (linear - linear.mean()).square().sum()
    reading = GradientNoiseScale().measure(with_gradients(G))
    assert reading.error == pytest.approx(float(variance.sqrt()) / square, rel=1e-10)


def test_noise_scale_says_why_it_has_no_error():
    few = GradientNoiseScale().measure(with_gradients(normal(NUM_BLOCKS - 1, 3) + 3))
    assert few.error is None
    assert "15 samples" in few.details["without_error"]
    large = GradientNoiseScale().measure(with_gradients(normal(32, 3) + 3, optional_bytes=0))
    assert large.error is None
    assert "per block" in large.details["without_error"]


def test_average_over_measurements_is_of_each_part_before_the_ratio():
    averaged, plain = GradientNoiseScale(ema_decay=0.5), GradientNoiseScale()
    first, second = (with_gradients(normal(20, 4, seed=s) + 2) for s in (0, 1))
    a, b = plain.measure(first), plain.measure(second)
    assert averaged.measure(first).value == pytest.approx(a.value)
    reading = averaged.measure(second)
    trace, square = ((a.details[k] + 2 * b.details[k]) / 3 for k in ("trace_covariance", "gradient_norm_squared"))
    assert reading.value == pytest.approx(trace / square, rel=1e-12)
    assert reading.details["trace_covariance"] == pytest.approx(trace, rel=1e-12)
    assert reading.details["gradient_norm_squared"] == pytest.approx(square, rel=1e-12)
    assert reading.error is None
    assert "not independent" in reading.details["without_error"]
    assert plain.measure(first).value == a.value


def test_wrong_decay_is_refused():
    with pytest.raises(ValueError, match=r"expected 0 <= ema_decay < 1, got 1.0"):
        GradientNoiseScale(ema_decay=1.0)


@pytest.mark.parametrize(
    ("diagnostic", "gradients", "reason"),
    [
        (GradientCosine(), torch.ones(1, 3), "two samples"),
        (GradientCosine(), torch.zeros(5, 3), "two samples with a gradient that is not zero, got 0"),
        (GradientCosine(), torch.full((5, 3), torch.nan), "5 of 5 per-sample gradients hold NaN"),
        (GradientCoherence(), torch.zeros(5, 3), "gradient of every sample is zero"),
        (GradientCoherence(), torch.full((5, 3), torch.inf), "hold NaN or Inf"),
        (GradientNoiseScale(), torch.ones(1, 3), "at least 2 samples"),
        (GradientNoiseScale(), torch.tensor([[1.0], [-1.0]]), "noise hides the gradient"),
        (GradientNoiseScale(), torch.full((5, 3), torch.nan), "hold NaN or Inf"),
    ],
)
def test_missing_with_the_reason(diagnostic, gradients, reason):
    with pytest.raises(Missing, match=reason):
        diagnostic.measure(with_gradients(gradients))


def test_successive_cosines_are_of_all_tensors_together():
    now, before = ({"a": normal(3, 2, seed=s), "b": normal(4, seed=s + 1)} for s in (0, 5))
    updates = [{name: -0.1 * g for name, g in now.items()}, {name: 0.2 * g for name, g in now.items()}]
    readings = SuccessiveCosine().measure(with_steps(now, updates[0], before, updates[1]))
    flat = [torch.cat([t.reshape(-1) for t in v.values()]) for v in (now, before)]
    expected = float(flat[0] @ flat[1] / (flat[0].norm() * flat[1].norm()))
    assert readings["gradient"].value == pytest.approx(expected, rel=1e-12)
    assert readings["update"].value == pytest.approx(-1)


def test_a_parameter_without_gradient_counts_as_zero():
    now, before = {"a": torch.tensor([3.0]), "b": torch.tensor([4.0])}, {"a": torch.tensor([1.0])}
    readings = SuccessiveCosine().measure(with_steps(now, now, before, before))
    assert readings["gradient"].value == pytest.approx(0.6)


def test_successive_is_missing_part_by_part():
    one = {"a": torch.ones(2)}
    readings = SuccessiveCosine().measure(with_steps(one, {"a": torch.zeros(2)}, None, one))
    assert "only one was recorded" in readings["gradient"].missing
    assert "vectors is zero" in readings["update"].missing
    with pytest.raises(Missing, match="no trajectory"):
        SuccessiveCosine().measure(FakeSnapshot())
