"""Where diagnostics are measured: what `where=` may say, and what is measured beside training."""

from __future__ import annotations

import pytest

from trainvitals.diagnostics.base import Needs, Tier
from trainvitals.diagnostics.registry import registered, select
from trainvitals.probes.side import Side, is_offloaded, offloaded, side_of


@pytest.mark.parametrize("where", ["Side", "gpu", None, True, 0, ["side"], object])
def test_where_is_refused_in_words(where):
    with pytest.raises(ValueError, match=r"expected 'inline', 'side' or a trainvitals.Side, got .* in where=; write"):
        side_of(where)


@pytest.mark.parametrize(
    "options",
    [
        {"num_threads": 0}, {"num_threads": 1.5}, {"num_threads": True}, {"niceness": -1}, {"num_waiting": 0},
        {"close_seconds": -1}, {"close_seconds": float("nan")}, {"close_seconds": "1"}, {"device": 3},
    ],
    ids=str,
)  # fmt: skip
def test_options_out_of_range_are_refused_in_words(options):
    (name,) = options
    with pytest.raises(ValueError, match=rf"expected .*, got .* in {name}= of trainvitals.Side; "):
        Side(**options)


def test_an_object_says_more_than_the_word():
    mine = Side(num_threads=2, num_waiting=5)
    assert side_of(mine) is mine
    assert side_of("side") == Side()
    assert side_of("inline") is None


@pytest.mark.parametrize(
    ("needs", "tier", "expected"),
    [
        (Needs.HVP, Tier.DEFAULT, True),
        (Needs.PARAMETERS, Tier.FULL, True),
        (Needs.PARAMETERS, Tier.LIGHT, False),  # costs less than the copy
        (Needs.OPTIMIZER_STATE, Tier.FULL, False),
        (Needs.OPTIMIZER_STATE | Needs.HVP, Tier.DEFAULT, True),
        (Needs.NOTHING, Tier.FULL, False),
        (Needs.TRAJECTORY | Needs.PARAMETERS, Tier.FULL, False),  # hooks on training steps see it
        (Needs.TRAJECTORY | Needs.GRADIENT, Tier.FULL, False),
    ],
    ids=lambda value: str(value).replace("Needs.", ""),
)
def test_needs_decide_what_is_measured_beside_training(needs, tier, expected):
    kind = type("Kind", (), {"needs": needs, "tier": tier})
    assert is_offloaded(kind) is expected


def test_all_that_takes_a_pass_and_reads_no_training_step_is_offloaded():
    names = offloaded(select("full"))
    assert {"hessian.top", "hessian.density", "oui", "gap", "stability", "weights.alpha"} <= names
    for name, kind in registered().items():
        if name in names:
            assert not kind.needs & Needs.TRAJECTORY, name
