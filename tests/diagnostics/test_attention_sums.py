"""Sums over the rows of attention against loops over sequences, heads, queries and keys."""

import math

import pytest
import torch
import torch.nn.functional as F

from trainvitals.diagnostics import attention_sums as module
from trainvitals.diagnostics.attention_sums import of_logits, of_products

B, H, T, S, E = 3, 2, 5, 4, 3


def draw(*shape, seed=0):
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def in_loops(z):
    """(largest, mean entropy, mean log of keys) of each head, of logits (B, H, T, S) with −Inf where masked."""
    found = []
    for h in range(z.shape[1]):
        largest, entropies, limits = -math.inf, [], []
        for b in range(z.shape[0]):
            for t in range(z.shape[2]):
                row = [float(v) for v in z[b, h, t] if v > -1e8]
                is_padding = z.shape[2] == z.shape[3] and bool((z[b, :, :, t] <= -1e8).all())
                if not row or is_padding:
                    continue
                p = [math.exp(v - max(row)) for v in row]
                p = [x / sum(p) for x in p]
                largest = max(largest, *row)
                entropies.append(-sum(x * math.log(x) for x in p if x > 0))
                limits.append(math.log(len(row)))
        found.append((largest, sum(entropies) / len(entropies), sum(limits) / len(limits)))
    return found


def means(sums):
    rows = sums.num_rows
    return list(zip(sums.largest.tolist(), (sums.entropy / rows).tolist(), (sums.limit / rows).tolist(), strict=True))


def masks(T, S):
    padding = torch.arange(S) < torch.tensor([S, 2, 1])[:, None, None, None]  # (B, 1, 1, S)
    numbers = draw(B, H, T, S, seed=9)
    return {
        "none": None,
        "booleans": padding,
        "numbers": numbers,
        "lowest number": torch.zeros(B, 1, 1, S).double().masked_fill(~padding, torch.finfo(torch.float64).min),
        "minus 1e9": torch.zeros(B, 1, 1, S).double().masked_fill(~padding, -1e9),
        "a row of nothing": torch.ones(T, S).bool().index_fill(0, torch.tensor([1]), False),
        "queries by keys": torch.rand(T, S, generator=torch.Generator().manual_seed(1)) < 0.6,
    }


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize(("T", "S"), [(5, 4), (4, 4), (2, 4)])
@pytest.mark.parametrize("name", masks(2, 2))
def test_sums_equal_loops(name, T, S, scale, is_causal):
    q, k, mask = draw(B, H, T, E), draw(B, H, S, E, seed=1), masks(T, S)[name]
    z = q @ k.transpose(2, 3) * (1 / math.sqrt(E) if scale is None else scale)
    if mask is not None:
        z = z.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else z + mask
    if is_causal:
        z = z.masked_fill(~torch.ones(T, S).tril().bool(), -math.inf)
    sums = of_products(q, k, mask, is_causal, scale)
    for found, expected in zip(means(sums), in_loops(z), strict=True):
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
    for found, expected in zip(means(of_logits(z)), in_loops(z), strict=True):
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert bool(sums.is_finite)


def test_sums_give_what_torch_attends_with():
    q, k = draw(B, H, T, E), draw(B, H, S, E, seed=1)
    p = F.scaled_dot_product_attention(q, k, torch.eye(S).double().expand(B, H, S, S))  # values that show the weights
    expected = torch.special.entr(p).sum(-1).mean((0, 2))
    assert (of_products(q, k).entropy / (B * T)).tolist() == pytest.approx(expected.tolist(), rel=1e-9)


def test_equal_logits_have_the_entropy_of_the_number_of_keys_and_one_key_has_none():
    sums = of_products(torch.zeros(1, 1, T, E), draw(1, 1, S, E).float())
    assert float(sums.entropy / sums.num_rows) == pytest.approx(math.log(S), rel=1e-6)
    assert float(sums.limit / sums.num_rows) == pytest.approx(math.log(S), rel=1e-12)
    one = of_products(draw(1, 1, T, E), draw(1, 1, 1, E))
    assert float(one.entropy) == 0.0


def test_a_shift_of_all_keys_changes_the_largest_logit_alone():
    z = draw(B, H, T, S)
    one, other = of_logits(z), of_logits(z + 7)
    assert other.entropy.tolist() == pytest.approx(one.entropy.tolist(), rel=1e-9)
    assert other.largest.tolist() == pytest.approx([v + 7 for v in one.largest.tolist()])


def test_parts_of_the_sequences_sum_to_the_whole(monkeypatch):
    q, k, mask = draw(B, H, T, E), draw(B, H, S, E, seed=1), masks(T, S)["booleans"]
    whole = of_products(q, k, mask)
    monkeypatch.setattr(module, "_CHUNK_ENTRIES", 1)
    for parts in (of_products(q, k, mask), of_products(q[:1], k[:1], mask[:1]) + of_products(q[1:], k[1:], mask[1:])):
        for name in ("largest", "entropy", "limit", "num_rows", "is_finite"):
            torch.testing.assert_close(getattr(parts, name), getattr(whole, name))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_marked(bad):
    z = draw(B, H, T, S)
    z[1, 0, 2, 3] = bad
    assert not bool(of_logits(z).is_finite)
