"""Probabilities of the classes against torch's softmax, and which dimension holds the classes."""

import pytest
import torch

from trainvitals.diagnostics.base import Evaluation, Missing
from trainvitals.diagnostics.class_probabilities import class_probabilities, class_scores, log_probabilities


def evaluation(outputs, targets):
    return Evaluation(0.0, outputs, targets, len(outputs))


def test_probabilities_are_the_softmax_of_the_outputs():
    z, y = torch.randn(7, 4), torch.arange(7) % 4
    found = class_probabilities(evaluation(z, y))
    torch.testing.assert_close(found.p, torch.softmax(z.double(), 1))
    expected = torch.nn.functional.cross_entropy(z.double(), y, reduction="none")
    torch.testing.assert_close(found.log_p_label, -expected)


def test_log_probabilities_stay_as_they_are():
    log_p = torch.log_softmax(torch.randn(7, 4, dtype=torch.float64), 1)
    torch.testing.assert_close(log_probabilities(log_p), log_p)


def test_probabilities_stay_as_they_are_and_logits_that_look_like_some_rows_do_not():
    p = torch.softmax(torch.randn(7, 4, dtype=torch.float64), 1)
    torch.testing.assert_close(log_probabilities(p), p.log())
    z = torch.cat([p, p + 0.1])
    torch.testing.assert_close(log_probabilities(z), torch.log_softmax(z, 1))


def test_a_masked_class_has_probability_zero():
    assert log_probabilities(torch.tensor([[0.0, 0.0, -torch.inf]])).exp().tolist() == [[0.5, 0.5, 0.0]]


def test_large_logits_do_not_overflow():
    assert log_probabilities(torch.tensor([[3e38, 0.0]])).tolist()[0][0] == 0.0


@pytest.mark.parametrize("bad", [[torch.nan, 0.0], [torch.inf, 0.0], [-torch.inf, -torch.inf]], ids=str)
def test_outputs_that_are_no_numbers_are_missing(bad):
    with pytest.raises(Missing, match="NaN or Inf"):
        log_probabilities(torch.tensor([bad]))


def test_regression_is_missing():
    with pytest.raises(Missing, match="targets are not class labels"):
        class_probabilities(evaluation(torch.randn(5, 2), torch.randn(5, 2)))


@pytest.mark.parametrize(
    ("shape", "targets", "expected"),
    [((6, 3), (6,), (6, 3)), ((6, 3, 5), (6, 5), (6, 5, 3)), ((6, 5, 3), (6, 5), (6, 5, 3)),
     ((6, 3, 4, 5), (6, 4, 5), (6, 4, 5, 3)), ((6, 4, 5, 3), (6, 4, 5), (6, 4, 5, 3))],
    ids=str,
)  # fmt: skip
def test_classes_are_the_dimension_that_targets_lack(shape, targets, expected):
    z = torch.randn(shape)
    found = class_scores(evaluation(z, torch.zeros(targets, dtype=torch.long)))
    assert found.shape == expected
    channel = 1 if shape[1] == 3 else -1
    torch.testing.assert_close(found.select(-1, 2), z.select(channel, 2))


@pytest.mark.parametrize(
    ("outputs", "targets", "reason"),
    [
        (torch.randn(6, 3), None, "no targets"),
        (torch.randn(6, 3), torch.randn(6, 3), "not class labels"),
        (torch.randn(6, 1), torch.zeros(6, dtype=torch.long), "not a classifier"),
        (torch.randn(6, 3), torch.zeros(6, 3, dtype=torch.long), "not a classifier"),
        (torch.randn(6), torch.zeros(6, dtype=torch.long), "not a classifier"),
    ],
    ids=["none", "regression", "one output", "multi-label", "flat"],
)
def test_scores_of_what_is_no_classifier_are_missing(outputs, targets, reason):
    with pytest.raises(Missing, match=reason):
        class_scores(evaluation(outputs, targets))
