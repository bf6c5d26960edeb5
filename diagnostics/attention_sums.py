"""What is kept of an attention layer: the largest logit and the entropy of its rows, by head, never the matrix.

A logit is what the softmax is taken of: the scaled product of a query and a key, with additive biases. It is masked
where a boolean mask says so, or where it is at most −1e8, as additive masks of −Inf, −1e9 or the dtype's lowest number
make it. Rows without an unmasked key are left out. Where there are as many queries as keys, so are the queries at
positions that no query may look at: they are padding.

Legend: B sequences, H heads, T queries, S keys, E features of a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_MASKED = -1e8
_CHUNK_ENTRIES = 2**22  # logits at a time: 16 MiB in float32


@dataclass(frozen=True)
class AttentionSums:
    """Sums over the rows of one layer's attention, by head."""

    largest: Tensor  # (H,) largest unmasked logit, −Inf without a row
    entropy: Tensor  # (H,) sum over rows of −Σ p log p, in nats
    limit: Tensor  # (H,) sum over rows of log of the number of unmasked keys: what the entropy can be at most
    num_rows: Tensor  # (H,)
    is_finite: Tensor  # () no logit is NaN or +Inf

    def __add__(self, other: AttentionSums) -> AttentionSums:
        """Return the sums over both."""
        return AttentionSums(
            torch.maximum(self.largest, other.largest),
            self.entropy + other.entropy,
            self.limit + other.limit,
            self.num_rows + other.num_rows,
            self.is_finite & other.is_finite,
        )


def of_logits(logits: Tensor) -> AttentionSums:
    """Return the sums of logits (B, H, T, S), masked entries at most −1e8; a part of the sequences at a time."""
    size = max(1, _CHUNK_ENTRIES // max(1, logits[:1].numel()))
    found = [_of_chunk(part) for part in logits.split(size)]
    total = found[0]
    for sums in found[1:]:
        total = total + sums
    return total


def of_products(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
) -> AttentionSums:
    """Return the sums of softmax(query keyᵀ · scale + mask), as torch's `scaled_dot_product_attention` has it.

    Args:
        query: (B, H, T, E).
        key: (B, H, S, E).
        mask: broadcast to (B, H, T, S); booleans, True where a query may look, or numbers to add.
        is_causal: query t sees keys up to t.
        scale: 1/√E if not given.
    """
    B, H, T, E = query.shape
    S = key.shape[-2]
    scale = 1 / math.sqrt(E) if scale is None else scale
    size = max(1, _CHUNK_ENTRIES // max(1, H * T * S))
    whole = None if mask is None else mask.expand(B, H, T, S)
    total: AttentionSums | None = None
    for start in range(0, B, size):
        part = slice(start, start + size)
        logits = (_wide(query[part]) * scale) @ _wide(key[part]).transpose(-2, -1)
        if whole is not None:
            logits = _masked(logits, whole[part])
        if is_causal:
            logits = _masked(logits, torch.ones(T, S, dtype=torch.bool, device=logits.device).tril())
        sums = _of_chunk(logits)
        total = sums if total is None else total + sums
    assert total is not None  # B is at least 1: a batch has samples
    return total


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _masked(logits: Tensor, mask: Tensor) -> Tensor:
    if mask.dtype == torch.bool:
        return logits.masked_fill(~mask, -torch.inf)
    return logits + mask.to(logits.dtype)


def _of_chunk(logits: Tensor) -> AttentionSums:
    logits = _wide(logits)
    is_finite = ~(logits.isnan() | (logits == torch.inf)).any()
    seen = logits > _MASKED  # (B, H, T, S)
    rows = seen.any(-1)  # (B, H, T)
    if logits.shape[-2] == logits.shape[-1]:
        rows = rows & seen.any(-2).any(1, keepdim=True)
    z = torch.where(seen & rows[..., None], logits, -torch.inf)
    largest = z.amax((0, 2, 3))
    p = torch.where(rows[..., None], z, 0.0).softmax(-1)
    entropy = torch.special.entr(p).sum(-1).double() * rows
    limit = seen.sum(-1).clamp(min=1).double().log() * rows
    return AttentionSums(largest.double(), entropy.sum((0, 2)), limit.sum((0, 2)), rows.sum((0, 2)), is_finite)
