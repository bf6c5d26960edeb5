"""Small networks of the bank."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


def mlp(*widths: int, activation: type[nn.Module] = nn.ReLU, norm: str = "", dropout: float = 0.0) -> nn.Sequential:
    """Return linear layers of these widths with an activation between; `norm` is "", "batch" or "layer"."""
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(widths)):
        layers.append(nn.Linear(a, b))
        if i < len(widths) - 2:
            layers += [nn.BatchNorm1d(b)] if norm == "batch" else [nn.LayerNorm(b)] if norm == "layer" else []
            layers.append(activation())
            layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers)


def cnn(channels: Sequence[int] = (8, 16), hidden: int = 32, norm: bool = True, num_classes: int = 10) -> nn.Sequential:
    """Return convolutions of 3×3 on 8×8 images, one pooling, a hidden layer and the classifier."""
    layers: list[nn.Module] = []
    for a, b in zip((1, *channels[:-1]), channels, strict=True):
        layers += [nn.Conv2d(a, b, 3, padding=1), *([nn.BatchNorm2d(b)] if norm else []), nn.ReLU()]
    layers += [nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * channels[-1], hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden, num_classes))


class Attention(nn.Module):
    """Causal self-attention, written out, with an optional norm of queries and keys."""

    def __init__(self, width: int, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)
        size = width // heads
        self.q_norm = nn.LayerNorm(size) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(size) if qk_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return the mixed values, (N, T, D)."""
        n, t, d = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(n, t, d))


class Block(nn.Module):
    """A Pre-LN block."""

    def __init__(self, width: int, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, qk_norm)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the stream after the block, (N, T, D)."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """A causal language model over few symbols: (N, T) → (N, T, V)."""

    def __init__(
        self, num_symbols: int, length: int, width: int = 32, heads: int = 2, blocks: int = 2, qk_norm: bool = False
    ) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(num_symbols, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, heads, qk_norm) for _ in range(blocks)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, num_symbols)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the next symbol."""
        h = self.embedding(x) + self.position(torch.arange(x.shape[1]))
        return self.head(self.norm(self.blocks(h)))


class RowTransformer(nn.Module):
    """A transformer that reads an 8×8 image as eight rows: (N, 64) → (N, 10)."""

    def __init__(self, width: int = 32, heads: int = 2, blocks: int = 2) -> None:
        super().__init__()
        self.embed, self.position = nn.Linear(8, width), nn.Parameter(0.02 * torch.randn(8, width))
        self.blocks = nn.Sequential(*(Block(width, heads, False) for _ in range(blocks)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the classes."""
        h = self.embed(x.view(len(x), 8, 8)) + self.position
        return self.head(self.norm(self.blocks(h)).mean(1))


def scaled(model: nn.Module, factor: float) -> nn.Module:
    """Multiply every weight matrix."""
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p.mul_(factor)
    return model
