"""Calibration against scikit-learn, loops over bins, and networks that are calibrated by construction."""

import math

import numpy as np
import pytest
import torch
from fake_snapshot import FakeSnapshot, evaluation
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from trainvitals.diagnostics.calibration import (
    BrierScore,
    ExpectedCalibrationError,
    MaximumCalibrationError,
    NegativeLogLikelihood,
    calibration_error,
)

ALL = (ExpectedCalibrationError(), MaximumCalibrationError(), BrierScore(), NegativeLogLikelihood())


def problem(N=60, C=4, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    z = scale * torch.randn(N, C, generator=generator, dtype=torch.float64)
    y = torch.randint(C, (N,), generator=generator)
    return torch.where(torch.rand(N, generator=generator) < 0.5, z.argmax(1), y), z


def snapshot_of(train, heldout=None):
    found = {"train": evaluation(0.0, train[1], train[0])}
    if heldout is not None:
        found["heldout"] = evaluation(0.0, heldout[1], heldout[0])
    return FakeSnapshot(**found)


def softmax(z):
    return torch.softmax(z, 1).numpy()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ece_equals_scikit_learns_curve_of_quantile_bins(seed):
    y, z = problem(60, seed=seed)  # 4 samples a bin, no ties
    confidence, right = softmax(z).max(1), (softmax(z).argmax(1) == y.numpy())
    share, mean = calibration_curve(right, confidence, n_bins=15, strategy="quantile")
    found = ExpectedCalibrationError().measure(snapshot_of((y, z)))["train"].value
    assert found == pytest.approx(float(np.abs(share - mean).mean()), rel=1e-9)
    largest = MaximumCalibrationError().measure(snapshot_of((y, z)))["train"].value
    assert largest == pytest.approx(float(np.abs(share - mean).max()), rel=1e-9)


@pytest.mark.parametrize(("N", "num_bins"), [(60, 15), (47, 15), (7, 15), (47, 1), (31, 4)])
def test_ece_equals_a_loop_over_ranks(N, num_bins):
    y, z = problem(N, seed=3)
    confidence, right = softmax(z).max(1), (softmax(z).argmax(1) == y.numpy())
    order = np.argsort(confidence)
    bins = {}
    for rank, i in enumerate(order):
        bins.setdefault(int((rank + 0.5) * num_bins / N), []).append(i)
    expected = sum(len(b) / N * abs(right[b].mean() - confidence[b].mean()) for b in bins.values())
    found = ExpectedCalibrationError(num_bins=num_bins).measure(snapshot_of((y, z)))["train"].value
    assert found == pytest.approx(expected, rel=1e-9)
    largest = MaximumCalibrationError(num_bins=num_bins).measure(snapshot_of((y, z)))["train"].value
    assert largest == pytest.approx(max(abs(right[b].mean() - confidence[b].mean()) for b in bins.values()), rel=1e-9)
    assert max(map(len, bins.values())) - min(map(len, bins.values())) <= 1


def test_equal_confidences_share_a_bin_whatever_their_order():
    confidences = torch.tensor([1.0] * 20 + [0.5] * 10)
    right = torch.tensor(([True] * 3 + [False]) * 5 + [True] * 4 + [False] * 6)
    expected = 20 / 30 * 0.25 + 10 / 30 * 0.1
    for seed in range(5):
        order = torch.randperm(30, generator=torch.Generator().manual_seed(seed))
        assert calibration_error(confidences[order], right[order], 15) == pytest.approx(expected)


def test_labels_drawn_from_the_probabilities_are_calibrated():
    generator = torch.Generator().manual_seed(0)
    z = 2 * torch.randn(60000, 4, generator=generator, dtype=torch.float64)
    y = torch.multinomial(torch.softmax(z, 1), 1, generator=generator).squeeze(1)
    found = ExpectedCalibrationError().measure(snapshot_of((y, z), (y, 3 * z)))
    # abs(acc − conf) of a bin of 4,000: mean at most √(2/π)·0.5/√4000 = 0.0063, deviation 0.0048; four deviations
    assert found["train"].value < 0.0063 + 4 * 0.0048 / math.sqrt(15)
    assert found["heldout"].value > 0.05  # three times too sure


def test_brier_equals_a_loop_and_is_two_at_worst():
    y, z = problem()
    p = softmax(z)
    by_hand = [sum((p[i, c] - int(c == y[i])) ** 2 for c in range(4)) for i in range(60)]
    reading = BrierScore().measure(snapshot_of((y, z)))["train"]
    assert reading.value == pytest.approx(float(np.mean(by_hand)))
    assert reading.error == pytest.approx(float(np.std(by_hand, ddof=1)) / math.sqrt(60))
    sure = torch.tensor([[1e3, 0.0], [1e3, 0.0]])
    found = [BrierScore().measure(snapshot_of((torch.tensor(t), sure)))["train"].value for t in ([0, 0], [1, 1])]
    assert found == [0.0, 2.0]


def test_nll_equals_scikit_learns_log_loss():
    y, z = problem()
    reading = NegativeLogLikelihood().measure(snapshot_of((y, z), (y[:20], z[:20])))
    assert reading["train"].value == pytest.approx(log_loss(y, softmax(z), labels=range(4)))
    assert reading["heldout"].value == pytest.approx(log_loss(y[:20], softmax(z)[:20], labels=range(4)))
    assert reading["train"].error == pytest.approx(float(torch.nn.functional.cross_entropy(
        z, y, reduction="none").std()) / math.sqrt(60))  # fmt: skip


@pytest.mark.parametrize("diagnostic", [BrierScore(), NegativeLogLikelihood()], ids=lambda d: d.name)
def test_the_stated_error_covers_the_mean_of_the_data(diagnostic):
    y, z = problem(20000, seed=9)
    truth = diagnostic.measure(snapshot_of((y, z)))["train"].value
    picks = torch.randperm(20000, generator=torch.Generator().manual_seed(1)).view(200, 100)
    found = [diagnostic.measure(snapshot_of((y[p], z[p])))["train"] for p in picks]
    covered = sum(abs(r.value - truth) < 2 * r.error for r in found) / 200
    assert 0.9 < covered < 0.99  # 95 % of 200: deviation 1.5 %


def test_shifting_logits_and_the_order_of_samples_change_nothing():
    y, z = problem()
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    for diagnostic in ALL:
        one = diagnostic.measure(snapshot_of((y, z)))["train"].value
        other = diagnostic.measure(snapshot_of((y[order], z[order] + torch.randn(60, 1))))["train"].value
        assert other == pytest.approx(one, rel=1e-9)


@pytest.mark.parametrize("diagnostic", ALL, ids=lambda d: d.name)
@pytest.mark.parametrize(
    ("outputs", "targets", "reason"),
    [
        (torch.randn(4, 2), torch.randn(4, 2), "not class labels"),
        (torch.full((4, 2), torch.nan), torch.zeros(4, dtype=torch.long), "NaN or Inf"),
        (torch.randn(4, 2), torch.full((4,), -100), "outside 0..1"),
    ],
    ids=["regression", "nan", "range"],
)
def test_missing_with_the_reason(diagnostic, outputs, targets, reason):
    found = diagnostic.measure(snapshot_of((targets, outputs)))
    assert reason in found["train"].missing
    assert found["heldout"].missing == "no heldout"


def test_a_label_of_probability_zero_is_infinitely_surprising():
    z = torch.tensor([[0.0, -torch.inf], [0.0, 0.0]])
    reading = NegativeLogLikelihood().measure(snapshot_of((torch.tensor([1, 0]), z)))["train"]
    assert (reading.value, reading.error) == (math.inf, None)


def test_one_sample_has_no_standard_error():
    assert BrierScore().measure(snapshot_of((torch.tensor([0]), torch.zeros(1, 2))))["train"].error is None


@pytest.mark.parametrize("wrong", [0, 1.5, True])
def test_num_bins_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match="expected a whole number of at least 1"):
        ExpectedCalibrationError(num_bins=wrong)


