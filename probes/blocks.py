"""Which modules are the blocks of a network: what its author has numbered."""

from __future__ import annotations

from torch import nn


def block_names(model: nn.Module) -> tuple[str, ...]:
    """Return the outermost modules that are numbered in a `Sequential` or `ModuleList`; else all layers with weights.

    >>> block_names(nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.ReLU())))
    ('0', '1')
    >>> block_names(nn.TransformerEncoderLayer(4, 2, 8))  # no list in it: its layers
    ('self_attn', 'self_attn.out_proj', 'linear1', 'linear2', 'norm1', 'norm2')
    """
    numbered = [name for name, _ in model.named_modules() if name.rpartition(".")[2].isdigit()]
    outermost = [name for name in numbered if not any(name.startswith(f"{other}.") for other in numbered)]
    if outermost:
        return tuple(outermost)
    return tuple(name or "model" for name, module in model.named_modules() if module._parameters)
