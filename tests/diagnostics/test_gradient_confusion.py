"""Confusion and rank against loops over pairs and numpy's singular values, on given gradients and on models."""

import math

import numpy as np
import pytest
import torch
from cases import CASES
from fake_snapshot import FakeSnapshot, with_gradients
from naive import sample_gradients

import trainvitals as tv
from trainvitals.diagnostics import gradient_gram
from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.gradient_confusion import GradientConfusion, GradientRank
from trainvitals.diagnostics.gradient_gram import GradientGram


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def worst_pair(G):
    """The smallest inner product over pairs, its pair, the smallest cosine and the share of pairs in conflict."""
    dots = {(i, j): float(G[i] @ G[j]) for i in range(len(G)) for j in range(i + 1, len(G))}
    cosines = [dot / float(G[i].norm() * G[j].norm()) for (i, j), dot in dots.items() if G[i].any() and G[j].any()]
    pair = min(dots, key=dots.__getitem__)
    return dots[pair], list(pair), min(cosines), sum(dot < 0 for dot in dots.values()) / len(dots)


def rank_by_hand(G):
    sigma = np.linalg.svd(G.numpy(), compute_uv=False)
    p = sigma / sigma.sum()
    return math.exp(-sum(q * math.log(q) for q in p if q > 0))


def test_confusion_equals_the_loop_over_pairs():
    G = normal(12, 5)
    reading = GradientConfusion().measure(with_gradients(G))
    dot, pair, cosine, share = worst_pair(G)
    assert reading.value == pytest.approx(-dot, rel=1e-12)
    assert reading.details["pair"] == pair
    assert reading.details["min_cosine"] == pytest.approx(cosine, rel=1e-12)
    assert reading.details["share_in_conflict"] == pytest.approx(share, rel=1e-12)
    assert reading.details["num_samples"] == reading.details["num_probe"] == 12


def test_confusion_is_zero_without_conflict_and_follows_the_square_of_the_scale():
    agreeing = GradientConfusion().measure(with_gradients(normal(9, 4).abs()))
    assert agreeing.value == 0
    assert agreeing.details["min_cosine"] > 0
    one, other = (GradientConfusion().measure(with_gradients(f * normal(9, 4))) for f in (1, 10))
    assert other.value == pytest.approx(100 * one.value, rel=1e-12)
    assert other.details["min_cosine"] == pytest.approx(one.details["min_cosine"], rel=1e-12)


def test_gradients_of_zero_have_no_cosine():
    G = torch.cat([normal(2, 3), torch.zeros(2, 3).double()])
    details = GradientConfusion().measure(with_gradients(G)).details
    assert details["min_cosine"] == pytest.approx(worst_pair(G)[2], rel=1e-12)
    zero = GradientConfusion().measure(with_gradients(torch.zeros(3, 2)))
    assert zero.value == 0
    assert "min_cosine" not in zero.details


@pytest.mark.parametrize("shape", [(12, 5), (5, 40)], ids=["tall", "wide"])
def test_rank_equals_that_of_the_singular_values(shape):
    G = normal(*shape) * torch.logspace(-3, 0, shape[1], dtype=torch.float64)
    assert GradientRank().measure(with_gradients(G)).value == pytest.approx(rank_by_hand(G), rel=1e-6)


def test_known_ranks():
    assert GradientRank().measure(with_gradients(torch.eye(7).double())).value == pytest.approx(7, rel=1e-12)
    one = torch.outer(normal(9), normal(40, seed=1))
    assert GradientRank().measure(with_gradients(one)).value == pytest.approx(1, rel=1e-9)
    lengths = torch.diag(torch.tensor([3.0, 1.0])).double()  # σ = 3, 1: p = 3/4, 1/4
    expected = 0.75**-0.75 * 0.25**-0.25
    assert GradientRank().measure(with_gradients(lengths)).value == pytest.approx(expected, rel=1e-12)


def test_rank_does_not_see_scale_rotation_or_order():
    G = normal(8, 6)
    turned = 1e-5 * (G @ torch.linalg.qr(normal(6, 6, seed=1))[0]).flip(0)
    one, other = GradientRank().measure(with_gradients(G)), GradientRank().measure(with_gradients(turned))
    assert other.value == pytest.approx(one.value, rel=1e-9)


def gradients_of(case):
    built = case.build()
    x, y = built.batch
    torch.backends.mha.set_fastpath_enabled(False)  # its kernel has no gradient
    try:
        return sample_gradients(built.model.eval(), built.loss, x, y).detach()
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def on_model(case):
    built = case.build()
    return tv.measure(built.model, loss=built.loss, batch=built.batches, what=["grad.confusion", "grad.rank"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_both_equal_the_definitions_on_models(case):
    G, readings = gradients_of(case), on_model(case)
    dot, _, cosine, share = worst_pair(G)
    assert readings["grad.confusion"].value == pytest.approx(max(0, -dot), rel=1e-6, abs=1e-12)
    assert readings["grad.confusion"].details["min_cosine"] == pytest.approx(cosine, rel=1e-6)
    assert readings["grad.confusion"].details["share_in_conflict"] == pytest.approx(share)
    assert readings["grad.rank"].value == pytest.approx(rank_by_hand(G), rel=1e-6)


def test_more_samples_than_the_limit_are_drawn_once_by_the_seed(monkeypatch):
    case = CASES[0]
    monkeypatch.setattr(gradient_gram, "MAX_SAMPLES", 10)
    one, other, G = on_model(case), on_model(case), gradients_of(case)
    details = one["grad.confusion"].details
    assert (details["num_samples"], details["num_probe"]) == (10, 24)
    assert one["grad.confusion"].value == other["grad.confusion"].value
    i, j = details["pair"]
    assert one["grad.confusion"].value == pytest.approx(-float(G[i] @ G[j]), rel=1e-6)
    assert one["grad.confusion"].value <= -worst_pair(G)[0] + 1e-12  # a bound from below
    assert 1 <= one["grad.rank"].value <= 10


@pytest.mark.parametrize("diagnostic", [GradientConfusion(), GradientRank()], ids=lambda d: d.name)
def test_missing_with_the_reason(diagnostic):
    with pytest.raises(Missing, match="a pair needs 2 samples, the probe has 1"):
        diagnostic.measure(with_gradients(torch.ones(1, 3)))
    with pytest.raises(Missing, match="hold NaN or Inf"):
        diagnostic.measure(with_gradients(torch.full((3, 3), torch.nan)))
    large = with_gradients(torch.ones(4, 3))
    with pytest.raises(Missing, match="do not fit into 1 GiB"):
        diagnostic.measure(FakeSnapshot(gradient_sums=large.gradient_sums, gradient_gram=GradientGram(torch.arange(1))))


def test_gradients_of_zero_have_no_rank():
    with pytest.raises(Missing, match="gradient of every sample is zero"):
        GradientRank().measure(with_gradients(torch.zeros(3, 2)))


def test_products_come_from_the_passes_that_all_share():
    built = CASES[0].build()
    what = ["grad.confusion", "grad.rank", "grad.cosine", "grad.gsnr", "grad.direction", "grad.per_class"]
    readings = tv.measure(built.model, loss=built.loss, batch=built.batches, what=what)
    passes = {id(reading.provenance): reading.provenance for reading in readings.values()}  # parts share one
    assert sum(p["backward_passes"] for p in passes.values()) == 1
