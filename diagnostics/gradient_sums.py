"""Per-sample gradients folded into sums, so that N gradients of P numbers never stand side by side.

Noise scale, coherence, cosines and their errors are all functions of these sums.

Legend: N samples, m samples of one piece, C classes, K blocks, P trainable parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

# Samples i, i+K, i+2K… make one block of the delete-a-block jackknife. With 16 blocks twice the standard
# error covers 93.6 % (Student's t, 15 degrees of freedom).
NUM_BLOCKS = 16

# Sums per class and per block are optional: each kind is left out when it alone would take more than this.
_OPTIONAL_BYTES = 2**30

_TILE_NUMBERS = 2**19  # of gradients widened to the accumulators' dtype at a time: 4 MiB, which stay in a CPU's cache
_MIN_COLUMNS = 256


class GradientSums:
    r"""Sums over per-sample gradients g_i, added piece by piece in float64.

    Kept are Σ g_i, Σ g_i/‖g_i‖, Σ g_i² and ‖g_i‖², and, where they fit into memory, the first two per
    class and the first per block of samples. A gradient of zero has no direction: it counts in every sum
    but those of unit gradients, and `num_zero` says how many there were.

    Args:
        layout: shapes of the trainable parameters by name, in the order in which gradients are flattened.
        num_classes: C if samples have labels, else None: then nothing is kept per class.
        dtype: of the accumulators.
        optional_bytes: class sums (2·C·P numbers) and block sums (K·P numbers) are left out, each on its
            own, when they would take more bytes than this; `without_class_sums` and `without_block_sums`
            then say so in words.

    Attributes:
        num_samples: N.
        squared_norms: (N,) ‖g_i‖².
        sum: (P,) Σ g_i.
        unit_sum: (P,) Σ g_i/‖g_i‖ over gradients that are not zero.
        sum_of_squares: (P,) Σ g_i², entry by entry.
        class_sizes: (C,) samples of each class, or None without labels.
        class_counts: (C,) those of them with a gradient that is not zero, or None without labels.
        class_sums: (C, P) Σ g_i over each class, or None.
        class_unit_sums: (C, P) Σ g_i/‖g_i‖ over each class, or None.
        block_sums: (K, P) Σ g_i over samples i, i+K, i+2K…, or None.

    >>> import torch
    >>> sums = GradientSums({"w": torch.Size([2])}, num_classes=None)
    >>> sums.add(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    >>> sums.squared_norms.tolist(), sums.num_zero
    ([25.0, 0.0], 1)
    >>> sums.unit_sum  # the gradient of zero has no direction
    tensor([0.6000, 0.8000], dtype=torch.float64)
    """

    def __init__(
        self,
        layout: Mapping[str, torch.Size],
        num_classes: int | None = None,
        dtype: torch.dtype = torch.float64,
        *,
        optional_bytes: int = _OPTIONAL_BYTES,
    ) -> None:
        self.layout = dict(layout)
        self.num_classes = num_classes
        self.dtype = dtype
        self.num_parameters = sum(math.prod(shape) for shape in layout.values())
        row_bytes = self.num_parameters * torch.finfo(dtype).bits // 8
        self.without_class_sums = _reason("class", 2 * (num_classes or 0), row_bytes, optional_bytes)
        if num_classes is None:
            self.without_class_sums = "the samples have no class labels"
        self.without_block_sums = _reason("block", NUM_BLOCKS, row_bytes, optional_bytes)
        self._allocate(torch.device("cpu"))

    def _allocate(self, device: torch.device) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=self.dtype, device=device)

        P, C = self.num_parameters, self.num_classes or 0
        self.num_samples = 0
        self.squared_norms = zeros(0)
        self.sum, self.unit_sum, self.sum_of_squares = zeros(P), zeros(P), zeros(P)
        self.class_sizes, self.class_counts = (None if self.num_classes is None else zeros(C) for _ in range(2))
        has_classes = self.without_class_sums is None
        self.class_sums = zeros(C, P) if has_classes else None
        self.class_unit_sums = zeros(C, P) if has_classes else None
        self.block_sums = zeros(NUM_BLOCKS, P) if self.without_block_sums is None else None

    @property
    def num_zero(self) -> int:
        """Samples whose gradient is exactly zero."""
        return int((self.squared_norms == 0).sum())

    @property
    def num_nonfinite(self) -> int:
        """Samples whose gradient holds NaN or Inf."""
        return int((~self.squared_norms.isfinite()).sum())

    def add(self, gradients: Tensor, labels: Tensor | None = None) -> None:
        """Fold a piece of per-sample gradients in.

        Args:
            gradients: (m, P), any floating dtype.
            labels: (m,) integers in 0..C-1; needed exactly when `num_classes` was given.

        Raises:
            ValueError: if a shape does not fit, or labels are missing, too many or out of range.
        """
        self._check(gradients, labels)
        if self.num_samples == 0 and gradients.device != self.sum.device:
            self._allocate(gradients.device)
        blocks = (torch.arange(len(gradients), device=gradients.device) + self.num_samples) % NUM_BLOCKS
        labels = None if labels is None else labels.to(gradients.device, torch.long)
        columns = self._columns(gradients)
        squared = torch.zeros(len(gradients), dtype=self.dtype, device=gradients.device)
        for start in range(0, self.num_parameters, columns):
            squared += gradients[:, start : start + columns].to(self.dtype).square().sum(1)
        inverse = torch.where(squared == 0, 0.0, squared.rsqrt())  # (m,) 1/‖g_i‖
        is_bad = ~squared.isfinite()
        inverse[is_bad] = torch.nan
        sums, weights = self._weights(inverse, labels, blocks)
        bad = is_bad.nonzero().flatten().tolist()
        for start in range(0, self.num_parameters, columns):
            tile = slice(start, start + columns)
            g = gradients[:, tile].to(self.dtype)  # (m, columns)
            for total, part in zip(sums, _product(weights, g, bad).split([len(t) for t in sums]), strict=True):
                total[:, tile] += part
            self.sum_of_squares[tile] += g.square().sum(0)
        if self.class_sizes is not None and self.class_counts is not None and labels is not None:
            self.class_sizes.index_add_(0, labels, torch.ones_like(squared))
            self.class_counts.index_add_(0, labels, (squared != 0).to(self.dtype))
        self.squared_norms = torch.cat([self.squared_norms, squared])
        self.num_samples += len(gradients)

    def _columns(self, gradients: Tensor) -> int:
        is_on_cpu = gradients.device.type == "cpu"
        return max(_MIN_COLUMNS, (_TILE_NUMBERS if is_on_cpu else 2**26) // max(1, len(gradients)))

    def _weights(self, inverse: Tensor, labels: Tensor | None, blocks: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the sums that are kept, (rows, P) each, and the weights of the samples in all their rows, (rows, m).

        Every sum is linear in the gradients: one product gives them all.
        """
        sums, weights = [self.sum[None], self.unit_sum[None]], [torch.ones_like(inverse)[None], inverse[None]]
        if self.block_sums is not None:
            sums.append(self.block_sums)
            weights.append(_indicator(blocks, NUM_BLOCKS, self.dtype))
        if self.class_sums is not None and self.class_unit_sums is not None and labels is not None:
            of_class = _indicator(labels, len(self.class_sums), self.dtype)
            sums += [self.class_sums, self.class_unit_sums]
            weights += [of_class, torch.where(of_class > 0, inverse, 0.0)]
        return sums, torch.cat(weights)

    def merge(self, other: GradientSums) -> None:
        """Add another fold's samples behind this one's: the same as one fold over both.

        Raises:
            ValueError: if the other fold has another layout, number of classes, dtype or set of optional sums.
        """
        mine, theirs = self._kind(), other._kind()
        if mine != theirs:
            raise ValueError(
                f"expected a fold with the same layout, classes, dtype and optional sums, got {theirs} for {mine} "
                "in GradientSums.merge; make both with the same arguments"
            )
        for name in (
            "sum", "unit_sum", "sum_of_squares", "class_sizes", "class_counts", "class_sums", "class_unit_sums",
        ):  # fmt: skip
            held, added = getattr(self, name), getattr(other, name)
            if held is not None:
                setattr(self, name, held + added.to(held.device))
        if self.block_sums is not None and other.block_sums is not None:
            # the other's sample j becomes sample N + j, and blocks go by the sample's number
            self.block_sums += other.block_sums.to(self.sum.device).roll(self.num_samples % NUM_BLOCKS, 0)
        self.squared_norms = torch.cat([self.squared_norms, other.squared_norms.to(self.sum.device)])
        self.num_samples += other.num_samples

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """Return a (P,) vector as views in the shapes of the parameters, by name."""
        pieces = vector.split([math.prod(shape) for shape in self.layout.values()])
        return {name: piece.view(shape) for (name, shape), piece in zip(self.layout.items(), pieces, strict=True)}

    def block_counts(self) -> Tensor:
        """Return the number of samples in each block, (K,)."""
        return torch.bincount(torch.arange(self.num_samples) % NUM_BLOCKS, minlength=NUM_BLOCKS)

    def _kind(self) -> tuple[object, ...]:
        return self.layout, self.num_classes, self.dtype, self.class_sums is None, self.block_sums is None

    def _check(self, gradients: Tensor, labels: Tensor | None) -> None:
        if gradients.ndim != 2 or gradients.shape[1] != self.num_parameters:
            raise ValueError(
                f"expected gradients of shape (m, {self.num_parameters}), got {tuple(gradients.shape)} "
                "in GradientSums.add; flatten the gradients in the order of the layout"
            )
        if (labels is None) != (self.num_classes is None):
            raise ValueError(
                f"expected labels exactly when num_classes is given, got num_classes={self.num_classes} and "
                f"labels={'None' if labels is None else 'a tensor'} in GradientSums.add; give both or neither"
            )
        if labels is None or self.num_classes is None or len(labels) == 0:
            return
        if labels.shape != gradients.shape[:1] or int(labels.min()) < 0 or int(labels.max()) >= self.num_classes:
            raise ValueError(
                f"expected {len(gradients)} labels in 0..{self.num_classes - 1}, got shape {tuple(labels.shape)} "
                f"with values {int(labels.min())}..{int(labels.max())} in GradientSums.add; "
                "pass the labels of this piece's samples"
            )


def _indicator(labels: Tensor, num_rows: int, dtype: torch.dtype) -> Tensor:
    """Return (rows, m): 1 where a sample has the row's label."""
    rows = torch.arange(num_rows, device=labels.device)
    return (labels[None] == rows[:, None]).to(dtype)


def _product(weights: Tensor, gradients: Tensor, bad: list[int]) -> Tensor:
    """Return weights @ gradients, (rows, columns), where a sample without weight in a row has no part in it.

    Not even one whose gradient is NaN or Inf (`bad`): in a plain product 0 · NaN would be NaN everywhere.
    """
    if not bad:
        return weights @ gradients
    good = [i for i in range(len(gradients)) if i not in bad]
    product = weights[:, good] @ gradients[good]
    for i in bad:
        rows = weights[:, i] != 0
        product[rows] += weights[rows, i, None] * gradients[i]
    return product


def _reason(kind: str, num_rows: int, row_bytes: int, limit: int) -> str | None:
    if num_rows * row_bytes <= limit:
        return None
    return f"sums per {kind} would take {num_rows * row_bytes / 2**20:.0f} MiB, more than {limit / 2**20:.0f} MiB"
