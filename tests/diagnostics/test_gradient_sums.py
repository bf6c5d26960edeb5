"""The streaming fold against the explicit (N, P) matrix."""

import pytest
import torch

from trainvitals.diagnostics.gradient_sums import NUM_BLOCKS, GradientSums

LAYOUT = {"a.weight": torch.Size([3, 4]), "a.bias": torch.Size([3]), "scale": torch.Size([])}
P, C = 16, 4
TENSORS = ("sum", "unit_sum", "sum_of_squares", "squared_norms", "class_sizes", "class_counts", "class_sums",
           "class_unit_sums", "block_sums")  # fmt: skip


@pytest.fixture
def samples():
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(37, P, generator=generator, dtype=torch.float64)
    gradients[5] = 0.0
    return gradients, torch.randint(0, C, (37,), generator=generator)


def folded(gradients, labels, sizes, num_classes=C, **options):
    sums = GradientSums(LAYOUT, num_classes, **options)
    start = 0
    for size in sizes:
        sums.add(gradients[start : start + size], None if labels is None else labels[start : start + size])
        start += size
    assert start == len(gradients)
    return sums


def assert_same(one, other):
    assert one.num_samples == other.num_samples
    assert one.num_zero == other.num_zero
    for name in TENSORS:
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.parametrize("sizes", [(37,), (16, 16, 5), (1,) * 37, (0, 37)])
def test_sums_equal_those_of_the_explicit_matrix(samples, sizes):
    G, labels = samples
    sums = folded(G, labels, sizes)
    norms = [float(g.norm()) for g in G]
    units = torch.stack([g / n if n > 0 else g for g, n in zip(G, norms, strict=True)])
    torch.testing.assert_close(sums.squared_norms.sqrt(), torch.tensor(norms, dtype=torch.float64))
    torch.testing.assert_close(sums.sum, G.sum(0))
    torch.testing.assert_close(sums.unit_sum, units.sum(0))
    torch.testing.assert_close(sums.sum_of_squares, (G**2).sum(0))
    for c in range(C):
        torch.testing.assert_close(sums.class_sums[c], G[labels == c].sum(0))
        torch.testing.assert_close(sums.class_unit_sums[c], units[labels == c].sum(0))
        assert sums.class_sizes[c] == sum(1 for y in labels if y == c)
        assert sums.class_counts[c] == sum(1 for y, n in zip(labels, norms, strict=True) if y == c and n > 0)
    for block in range(NUM_BLOCKS):
        torch.testing.assert_close(sums.block_sums[block], G[block::NUM_BLOCKS].sum(0))
        assert sums.block_counts()[block] == len(G[block::NUM_BLOCKS])
    assert (sums.num_samples, sums.num_zero, sums.num_nonfinite) == (37, 1, 0)


@pytest.mark.parametrize("cut", [0, 7, 16, 20, 37])
def test_merging_two_folds_equals_one(samples, cut):
    G, labels = samples
    one = folded(G, labels, (37,))
    first, second = folded(G[:cut], labels[:cut], (cut,)), folded(G[cut:], labels[cut:], (37 - cut,))
    first.merge(second)
    assert_same(first, one)


def test_float32_gradients_are_summed_in_float64():
    G = torch.full((1000, P), 0.1, dtype=torch.float32)
    sums = folded(G, None, (1000,), num_classes=None)
    assert sums.sum.dtype == torch.float64
    torch.testing.assert_close(sums.sum, G.double().sum(0), rtol=1e-14, atol=0)


def test_gradients_too_small_for_float32_squares_keep_their_direction():
    sums = folded(torch.full((2, P), 1e-30), None, (2,), num_classes=None)
    assert sums.num_zero == 0
    torch.testing.assert_close(sums.unit_sum.norm(), torch.tensor(2.0, dtype=torch.float64))


def test_wide_gradients_are_added_slice_by_slice(samples, monkeypatch):
    G, labels = samples
    whole = folded(G, labels, (20, 17))
    monkeypatch.setattr("trainvitals.diagnostics.gradient_sums._TILE_NUMBERS", 1)
    monkeypatch.setattr("trainvitals.diagnostics.gradient_sums._MIN_COLUMNS", 5)
    assert_same(folded(G, labels, (20, 17)), whole)


def test_a_sample_with_nan_touches_no_sum_that_it_is_not_in(samples):
    G, labels = samples
    poisoned = G.clone()
    poisoned[3, 1], poisoned[5, 0] = torch.nan, torch.inf
    sums, clean = folded(poisoned, labels, (37,)), folded(G, labels, (37,))
    assert sums.num_nonfinite == 2
    for kind, rows in (("class_sums", labels[[3, 5]]), ("class_unit_sums", labels[[3, 5]]),
                       ("block_sums", torch.tensor([3, 5]))):  # fmt: skip
        untouched = torch.ones(len(getattr(sums, kind)), dtype=torch.bool)
        untouched[rows] = False
        torch.testing.assert_close(getattr(sums, kind)[untouched], getattr(clean, kind)[untouched])
        assert not getattr(sums, kind)[rows].isfinite().all()


def test_class_sums_are_left_out_when_too_large_and_say_so(samples):
    G, labels = samples
    enough = 2 * C * P * 8
    assert folded(G, labels, (37,), optional_bytes=enough).class_sums is not None
    sums = folded(G, labels, (37,), optional_bytes=enough - 1)
    assert sums.class_sums is None
    assert sums.class_unit_sums is None
    assert "per class" in sums.without_class_sums
    assert sums.class_counts.sum() == 36
    torch.testing.assert_close(sums.sum, G.sum(0))


def test_block_sums_are_left_out_when_too_large_and_say_so(samples):
    sums = folded(samples[0], None, (37,), num_classes=None, optional_bytes=NUM_BLOCKS * P * 8 - 1)
    assert sums.block_sums is None
    assert "per block" in sums.without_block_sums
    assert "no class labels" in sums.without_class_sums


def test_nonfinite_gradients_are_counted():
    G = torch.ones(3, P)
    G[1, 2] = torch.nan
    G[2, 0] = torch.inf
    assert folded(G, None, (3,), num_classes=None).num_nonfinite == 2


def test_split_follows_the_layout(samples):
    sums = folded(*samples, (37,))
    parts = sums.split(sums.sum)
    assert {name: part.shape for name, part in parts.items()} == LAYOUT
    assert torch.equal(torch.cat([part.reshape(-1) for part in parts.values()]), sums.sum)


@pytest.mark.parametrize(
    ("gradients", "labels", "words"),
    [
        (torch.zeros(2, P + 1), torch.zeros(2, dtype=torch.long), r"expected gradients of shape \(m, 16\)"),
        (torch.zeros(2, P), None, "expected labels exactly when"),
        (torch.zeros(2, P), torch.tensor([0, C]), "expected 2 labels in 0..3"),
        (torch.zeros(2, P), torch.tensor([-1, 0]), "expected 2 labels in 0..3"),
        (torch.zeros(2, P), torch.tensor([0]), "expected 2 labels in 0..3"),
    ],
)
def test_wrong_pieces_are_refused(gradients, labels, words):
    with pytest.raises(ValueError, match=words):
        GradientSums(LAYOUT, C).add(gradients, labels)


def test_labels_without_classes_are_refused():
    with pytest.raises(ValueError, match="expected labels exactly when"):
        GradientSums(LAYOUT).add(torch.zeros(2, P), torch.zeros(2, dtype=torch.long))


def test_folds_of_another_kind_are_not_merged():
    with pytest.raises(ValueError, match=r"in GradientSums\.merge"):
        GradientSums(LAYOUT, 3).merge(GradientSums(LAYOUT, 4))
