"""Which parameters belong to normalisation layers."""

from __future__ import annotations

import re

from torch import nn

_NORM = re.compile(r"Norm(\dd)?$")


def norm_parameters(model: nn.Module) -> frozenset[str]:
    """Return the names of the trainable parameters that a normalisation layer owns.

    A layer counts by its class's name, which ends in Norm, Norm1d, Norm2d or Norm3d: that holds for torch's own
    and for those that libraries bring (`LlamaRMSNorm`, `T5LayerNorm`, `FrozenBatchNorm2d`).

    >>> sorted(norm_parameters(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))))
    ['1.bias', '1.weight']
    """
    owned = {
        p
        for module in model.modules()
        if _NORM.search(type(module).__name__)
        for p in module.parameters(recurse=False)
    }
    return frozenset(name for name, p in model.named_parameters() if p.requires_grad and p in owned)
