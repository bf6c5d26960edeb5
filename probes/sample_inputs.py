"""What the samples of a probe look like: small pictures or short rows of tokens, kept once in a run.

They let the page *Which samples?* show a sample instead of its number. They are training data: `watch(inputs=False)`
keeps none.

Legend: N samples kept, H and W pixels, C channels, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves

from trainvitals.diagnostics.base import Diagnostic
from trainvitals.probes.probe_batch import ProbeBatch
from trainvitals.probes.subject import Subject
from trainvitals.schema import Chart, Description, Question, Reading

NAME = "samples.inputs"
MAX_SAMPLES = 512
MAX_SIDE = 64  # pixels
MAX_TOKENS = 64
MAX_BYTES = 2**19  # of all together, before compression
DESCRIPTION = Description(
    name=NAME, title="Inputs of the samples", question=Question.SAMPLES, chart=Chart.HEATMAP, keys="sample",
    summary="Samples of the train probe, kept once as small pictures or short rows of tokens.", unit="grey level",
    undefined="Inputs that are neither images nor rows of tokens, or inputs=False.",
)  # fmt: skip


def kept_inputs(subject: Subject, diagnostics: Iterable[Diagnostic]) -> dict[str, Reading]:
    """Return what a run keeps of its samples: nothing if no diagnostic of the run tells single samples apart."""
    by_sample = any(words.keys == "sample" for d in diagnostics for words in d.descriptions().values())
    return {NAME: sample_inputs(subject.train)} if by_sample else {}


def sample_inputs(batch: ProbeBatch) -> Reading:
    """Return pictures (N, H·W·C) of 8-bit levels, or tokens (N, T), of the first samples that fit into the bounds.

    Images are (C, H, W), (H, W) or flat squares, shrunk to at most 64 pixels a side; their smallest and largest
    value are black and white. Details: `kind` ("image", "tokens"), `height`, `width`, `channels`, and `labels` (N,)
    where the targets are whole numbers. Keys are the samples' places in the probe. Missing for other inputs.
    """
    found = [_main_input(chunk, size) for chunk, size in zip(batch.chunks, batch.sizes, strict=True)]
    parts = [part for part in found if part is not None and part.shape[1:] == found[0].shape[1:]]  # pyright: ignore[reportOptionalMemberAccess]
    if not parts or len(parts) != len(found):
        return Reading.absent("the inputs are not tensors of one shape")
    inputs = torch.cat([part[:MAX_SAMPLES].detach().cpu() for part in parts])[:MAX_SAMPLES]
    kind, rows, details = _pictures(inputs) if inputs.is_floating_point() else _tokens(inputs)
    if rows is None:
        return Reading.absent(f"inputs of shape {tuple(inputs.shape[1:])} are neither images nor rows of tokens")
    rows = rows[: max(1, MAX_BYTES // (rows[0].numel() * rows.element_size()))]
    details = {"kind": kind, **details, **_labels(batch, len(rows))}
    return Reading(rows.numpy(), keys=tuple(str(i) for i in range(len(rows))), details=details)


def _main_input(chunk: Any, size: int) -> Tensor | None:
    """Return the inputs (n, ...) of a chunk: the first of a pair, or of a mapping's usual names, else its first."""
    if isinstance(chunk, Mapping):
        named = (chunk.get(name) for name in ("pixel_values", "input_ids", "inputs", "x"))
        chunk = next((value for value in named if isinstance(value, Tensor)), list(chunk.values()))
    leaves = [leaf for leaf in tree_leaves(chunk) if isinstance(leaf, Tensor) and leaf.ndim and len(leaf) == size]
    return leaves[0] if leaves else None


def _pictures(inputs: Tensor) -> tuple[str, Tensor | None, dict[str, Any]]:
    images = _as_images(inputs.float())
    if images is None:
        return "image", None, {}
    shrink = min(1.0, MAX_SIDE / max(images.shape[2:]))
    if shrink < 1:
        images = F.interpolate(images, size=[max(1, round(shrink * side)) for side in images.shape[2:]], mode="area")
    finite = images[images.isfinite()]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    levels = ((images.nan_to_num(low, high, low) - low) / max(high - low, 1e-12) * 255).round().clamp(0, 255)
    channels, height, width = images.shape[1:]
    details = {"height": height, "width": width, "channels": channels}
    return "image", levels.permute(0, 2, 3, 1).flatten(1).to(torch.uint8), details


def _as_images(inputs: Tensor) -> Tensor | None:
    """Return images (N, C, H, W) with one channel or three, or None."""
    if inputs.ndim == 2:
        side = math.isqrt(inputs.shape[1])
        if side * side != inputs.shape[1] or side < 4:
            return None
        return inputs.view(len(inputs), 1, side, side)
    if inputs.ndim == 3:
        inputs = inputs[:, None]
    if inputs.ndim != 4 or min(inputs.shape[1:]) < 1:
        return None
    return inputs if inputs.shape[1] in (1, 3) else inputs.mean(1, keepdim=True)


def _tokens(inputs: Tensor) -> tuple[str, Tensor | None, dict[str, Any]]:
    if inputs.ndim == 3 or inputs.ndim == 4:  # images of whole numbers
        return _pictures(inputs.float())
    fits = inputs.ndim == 2 and not inputs.is_complex()
    return "tokens", inputs[:, :MAX_TOKENS].to(torch.int32).contiguous() if fits else None, {}


def _labels(batch: ProbeBatch, count: int) -> dict[str, Any]:
    targets = batch.targets
    if targets is None or targets.ndim != 1 or targets.is_floating_point() or targets.is_complex():
        return {}
    return {"labels": targets[:count].cpu().to(torch.int64).numpy()}
