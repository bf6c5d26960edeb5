"""Gradient starvation: a feature that tells something keeps a small share of the margin once the data is fitted."""

import numpy as np
import pytest
from synthetic_series import STEPS, facts

from trainvitals.schema import VerdictState
from trainvitals.verdicts.gradient_starvation import GradientStarvation
from trainvitals.verdicts.run_facts import Unmeasured

KEYS = ("strong", "weak")


def features(strong, weak):
    columns = [np.broadcast_to(np.asarray(v, float), len(STEPS)) for v in (strong, weak)]
    return STEPS, np.stack(columns, 1), KEYS


def judged(weak_margin=0.2, weak_accuracy=0.7, strong_flipped=0.0, fitted=1.0):
    run = facts({
        "feature.response.margin_alone": features(np.minimum(STEPS / 100, 6.0), weak_margin),
        "feature.response.accuracy_alone": features(1.0, weak_accuracy),
        "feature.response.accuracy_flipped": features(strong_flipped, 0.98),
        "accuracy.train": (STEPS, np.full(len(STEPS), fitted)),
        "chance.accuracy": ([0], [0.5]),
    })  # fmt: skip
    return GradientStarvation().judge(run)


def test_a_weak_feature_beside_a_strong_one_that_decides_alone_is_an_alarm():
    assert judged().state == VerdictState.ALARM


def test_a_strong_feature_that_does_not_decide_alone_is_only_watched():
    assert judged(strong_flipped=0.5).state == VerdictState.WATCH


def test_two_features_with_like_margins_are_healthy():
    assert judged(weak_margin=3.0, weak_accuracy=0.95).state == VerdictState.HEALTHY


def test_a_feature_that_tells_nothing_does_not_starve():
    assert judged(weak_accuracy=0.5).state == VerdictState.HEALTHY


def test_before_the_data_is_fitted_nothing_is_said():
    assert judged(fitted=0.7).state == VerdictState.HEALTHY


def test_without_responses_it_cannot_tell():
    with pytest.raises(Unmeasured, match=r"feature\.response"):
        GradientStarvation().judge(facts({"accuracy.train": (STEPS, np.ones(len(STEPS)))}))
