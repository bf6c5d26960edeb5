"""OUI over explicit pairs with the clamp, and over explicit units."""

import pytest
import torch
from fake_snapshot import FakeSnapshot
from naive import by_unit_v2, pairwise_v1

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.oui import Oui, OuiLayers, OuiV2, firing_patterns, overlap_v1, overlap_v2


def patterns(num_samples, num_units, rate=0.5, seed=0):
    return torch.rand(num_samples, num_units, generator=torch.Generator().manual_seed(seed)) < rate


@pytest.mark.parametrize("num_samples", [2, 3, 17])
@pytest.mark.parametrize("num_units", [2, 3, 8, 31])
@pytest.mark.parametrize("rate", [0.0, 0.05, 0.5, 0.9, 1.0])
def test_v1_and_v2_equal_the_explicit_loops(num_samples, num_units, rate):
    b = patterns(num_samples, num_units, rate, seed=num_units)
    assert overlap_v1(b) == pytest.approx(pairwise_v1(b), rel=1e-12, abs=1e-15)
    assert overlap_v2(b) == pytest.approx(by_unit_v2(b), rel=1e-12, abs=1e-15)


def test_the_clamp_matters_where_pairs_differ_in_more_than_half():
    b = torch.tensor([[True] * 4, [False] * 4, [True, False, False, False]])
    assert overlap_v1(b) == pytest.approx((2 + 2 + 1) / (3 * 2))
    s = b.sum(0).double()
    unclamped = float((2 * s * (3 - s)).sum()) / (3 * 2 * 2)
    assert overlap_v1(b) < unclamped


def test_both_ways_agree_where_no_pair_reaches_the_clamp(monkeypatch):
    b = patterns(20, 40, rate=0.1)
    b[:, ::2] ^= True  # half of the units fire on most samples, half on few: no two samples differ in 20
    monkeypatch.setattr("trainvitals.diagnostics.oui._hamming", lambda _: pytest.fail("pairs were formed"))
    assert overlap_v1(b) == pytest.approx(pairwise_v1(b), rel=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_the_way_is_chosen_rightly_around_the_clamp(seed):
    b = patterns(6, 12, rate=0.2 + 0.01 * seed, seed=seed)
    assert overlap_v1(b) == pytest.approx(pairwise_v1(b), rel=1e-12)


def test_chunks_of_units_change_nothing(monkeypatch):
    b = patterns(12, 50)
    whole = overlap_v1(b)
    monkeypatch.setattr("trainvitals.diagnostics.oui._CHUNK_ENTRIES", 12 * 7)
    assert overlap_v1(b) == whole


def test_autocast_does_not_round_the_counts():
    b = torch.ones(2, 10_001, dtype=torch.bool)
    b[0, ::2] = False
    b[1, 1::3] = False
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert overlap_v1(b) == pytest.approx(pairwise_v1(b), rel=1e-12)


def test_order_of_units_and_samples_changes_nothing():
    b, generator = patterns(9, 14), torch.Generator().manual_seed(1)
    shuffled = b[torch.randperm(9, generator=generator)][:, torch.randperm(14, generator=generator)]
    assert overlap_v1(shuffled) == overlap_v1(b)
    assert overlap_v2(shuffled) == overlap_v2(b)


def test_scales_differ_as_the_definitions_say():
    b = patterns(400, 200, rate=0.1)
    assert overlap_v1(b) == pytest.approx(4 * 0.1 * 0.9, abs=0.02)
    assert overlap_v2(b) == pytest.approx(2 * 0.1, abs=0.02)


def test_convolutions_count_channels_and_positions():
    x = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert firing_patterns(x).shape == (5, 48)
    assert torch.equal(firing_patterns(x), (x.reshape(5, -1) > 0))


def test_zero_does_not_fire():
    assert firing_patterns(torch.tensor([[0.0, -1.0, 1e-30]])).tolist() == [[False, False, True]]


def layers(**sizes):
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(6, size, generator=generator) for name, size in sizes.items()}


def test_readings_are_the_layers_and_their_mean():
    found = layers(first=8, second=5)
    snapshot = FakeSnapshot(activations=found, layer_outputs=found)
    expected = [pairwise_v1(x > 0) for x in found.values()]
    whole, by_layer, v2 = (d.measure(snapshot) for d in (Oui(), OuiLayers(), OuiV2()))
    assert whole.value == pytest.approx(sum(expected) / 2, rel=1e-12)
    assert whole.details["layers"] == pytest.approx(dict(zip(found, expected, strict=True)))
    assert by_layer.value.tolist() == pytest.approx(expected, rel=1e-12)
    assert by_layer.keys == v2.keys == ("first", "second")
    assert v2.value.tolist() == pytest.approx([by_unit_v2(x > 0) for x in found.values()], rel=1e-12)
    assert v2.details["mean"] == pytest.approx(float(v2.value.mean()))


def test_the_band_belongs_to_v1_alone():
    (band,) = Oui.references
    assert (band.value, band.upper) == (0.6, 0.8)
    assert "three image CNNs" in band.source
    assert OuiV2.references == ()


def test_layers_without_a_value_are_named():
    found = {**layers(wide=8, single=1), "broken": torch.full((6, 4), torch.nan)}
    reading = OuiLayers().measure(FakeSnapshot(activations=found))
    assert reading.keys == ("wide",)
    assert set(reading.details["left_out"]) == {"single", "broken"}
    assert Oui().measure(FakeSnapshot(activations=found)).value == pytest.approx(float(reading.value[0]))


@pytest.mark.parametrize(
    ("activations", "reason"),
    [
        ({}, "no non-linearity was found"),
        ({"relu": torch.ones(1, 8)}, "one sample in the probe batch"),
        ({"relu": torch.ones(6, 1)}, "one unit"),
        ({"relu": torch.full((6, 4), torch.nan)}, "NaN"),
    ],
)
def test_missing_with_the_reason(activations, reason):
    for diagnostic in (Oui(), OuiLayers()):
        with pytest.raises(Missing, match=reason):
            diagnostic.measure(FakeSnapshot(activations=activations))


def test_v2_is_missing_without_linear_layers():
    with pytest.raises(Missing, match="no linear layer and no convolution"):
        OuiV2().measure(FakeSnapshot(layer_outputs={}))
