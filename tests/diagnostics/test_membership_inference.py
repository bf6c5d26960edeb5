"""The AUC against scikit-learn and a loop over pairs; its error covers the truth."""

import numpy as np
import pytest
import torch
from cases import CASES
from fake_snapshot import FakeSnapshot
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

import trainvitals as tv
from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.membership_inference import MembershipInference, auc


def scores(N=30, M=50, seed=0, shift=0.5, digits=6):
    rng = np.random.default_rng(seed)
    return np.round(rng.normal(size=N) + shift, digits), np.round(rng.normal(size=M), digits)


@pytest.mark.parametrize("digits", [6, 0])  # 0 digits: many ties
@pytest.mark.parametrize(("N", "M"), [(30, 50), (50, 7), (1, 3)])
def test_auc_equals_scikit_learn_and_a_loop_over_pairs(N, M, digits):
    a, b = scores(N, M, digits=digits)
    pairs = [(x > y) + (x == y) / 2 for x in a for y in b]
    value, _ = auc(a, b)
    assert value == pytest.approx(roc_auc_score([1] * N + [0] * M, np.concatenate([a, b])))
    assert value == pytest.approx(np.mean(pairs))


def test_the_error_is_delongs_from_the_matrix_of_pairs():
    a, b = scores(digits=0)
    psi = np.array([[(x > y) + (x == y) / 2 for y in b] for x in a])
    expected = np.sqrt(psi.mean(1).var(ddof=1) / len(a) + psi.mean(0).var(ddof=1) / len(b))
    assert auc(a, b)[1] == pytest.approx(expected)


def test_two_standard_errors_cover_the_truth():
    truth = norm.cdf(0.5 / np.sqrt(2))
    found = [auc(*scores(60, 60, seed)) for seed in range(400)]
    covered = np.mean([abs(value - truth) < 2 * error for value, error in found])
    assert 0.92 < covered < 0.98  # 95.4 % of 400: deviation 1 %


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_reading_is_that_of_the_losses_of_single_samples(case):
    built = case.build()
    arguments = {"loss": built.loss, "batch": built.batches, "heldout": built.heldout_batches}
    reading = tv.measure(built.model, what=["mia_auc"], **arguments)["mia_auc"]
    model = built.model.eval()
    with torch.no_grad():
        losses = [[float(built.loss(model(x[i : i + 1]), y[i : i + 1])) for i in range(len(x))]
                  for x, y in (built.batch, built.heldout)]  # fmt: skip
    labels = [1] * len(losses[0]) + [0] * len(losses[1])
    assert reading.value == pytest.approx(roc_auc_score(labels, -np.array([*losses[0], *losses[1]])))


def measured(members, others):
    return MembershipInference().measure(FakeSnapshot(
        sample_losses=torch.tensor(members), heldout_sample_losses=torch.tensor(others)))  # fmt: skip


def test_all_below_all_is_one_and_equal_losses_are_a_half():
    assert measured([0.0, 1.0], [2.0, torch.inf]).value == 1.0
    assert measured([1.0, 1.0], [1.0]).value == 0.5
    assert measured([1.0, 1.0], [1.0]).error is None


def test_swapping_the_probes_and_scaling_the_loss():
    a, b = scores()
    assert auc(b, a)[0] == pytest.approx(1 - auc(a, b)[0])
    assert auc(np.exp(a), np.exp(b)) == auc(a, b)


def test_missing_with_the_reason():
    with pytest.raises(Missing, match="loss of a sample is NaN"):
        measured([0.0, torch.nan], [1.0])
    with pytest.raises(Missing, match="no heldout_sample_losses"):
        MembershipInference().measure(FakeSnapshot(sample_losses=torch.zeros(3)))
