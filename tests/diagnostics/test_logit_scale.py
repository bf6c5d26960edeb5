"""Size and normaliser of the logits against loops over samples, tokens and classes."""

import math

import pytest
import torch
from fake_snapshot import FakeSnapshot, evaluation

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.logit_scale import LogitScale, LogNormalizer


def measured(outputs, targets):
    snapshot = FakeSnapshot(train=evaluation(0.0, outputs, targets))
    found = {d.name: d.measure(snapshot) for d in (LogitScale(), LogNormalizer())}
    return {f"{name}.{part}": reading.value for name, parts in found.items() for part, reading in parts.items()}


def by_loops(rows):
    sizes = [abs(v) for row in rows for v in row]
    log_z = [math.log(sum(math.exp(v) for v in row)) for row in rows]
    return {
        "logit.scale.mean": sum(sizes) / len(sizes), "logit.scale.largest": max(sizes),
        "logit.z.mean": sum(log_z) / len(log_z), "logit.z.largest": max(abs(v) for v in log_z),
    }  # fmt: skip


def outputs(*shape):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 2


@pytest.mark.parametrize("shape", [(9, 4), (9, 5, 4), (9, 4, 3, 3)], ids=["samples", "tokens", "pixels"])
def test_numbers_equal_loops(shape):
    z = outputs(*shape)
    axis = -1 if len(shape) == 3 else 1
    targets = torch.zeros([n for i, n in enumerate(shape) if i != axis % len(shape)], dtype=torch.long)
    expected = by_loops(z.movedim(axis, -1).reshape(-1, 4).tolist())
    assert measured(z, targets) == pytest.approx(expected)


def test_scaling_scales_and_a_shift_moves_log_z_alone_by_itself():
    z, y = outputs(9, 4), torch.zeros(9, dtype=torch.long)
    one, scaled, shifted = measured(z, y), measured(3 * z, y), measured(z + 100, y)
    assert scaled["logit.scale.mean"] == pytest.approx(3 * one["logit.scale.mean"])
    assert shifted["logit.z.mean"] == pytest.approx(one["logit.z.mean"] + 100)


def test_normalised_log_probabilities_have_log_z_zero():
    log_p = torch.log_softmax(outputs(9, 4), 1)
    assert measured(log_p, torch.zeros(9, dtype=torch.long))["logit.z.largest"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("diagnostic", [LogitScale(), LogNormalizer()], ids=lambda d: d.name)
@pytest.mark.parametrize(
    ("outputs", "targets", "reason"),
    [
        (torch.randn(4, 2), torch.randn(4, 2), "not class labels"),
        (torch.full((4, 2), torch.nan), torch.zeros(4, dtype=torch.long), "NaN or Inf"),
        (torch.randn(4, 1), torch.zeros(4, dtype=torch.long), "not a classifier"),
    ],
    ids=["regression", "nan", "one output"],
)
def test_missing_with_the_reason(diagnostic, outputs, targets, reason):
    with pytest.raises(Missing, match=reason):
        diagnostic.measure(FakeSnapshot(train=evaluation(0.0, outputs, targets)))
