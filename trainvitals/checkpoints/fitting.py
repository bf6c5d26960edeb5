"""Put a checkpoint's weights into the model, or say in a few lines why they are another model's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

import torch
from torch import Tensor, nn

from trainvitals.checkpoints.errors import CheckpointError

_SHOWN = 3  # names in a message
_MAY_BE_ABSENT = ("num_batches_tracked",)  # torch itself fills it in for old checkpoints


def fit(model: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Copy weights into a model, whose dtypes and devices stay as they are.

    Raises:
        CheckpointError: as `matched`; the model is then as it was.
    """
    put(model, matched(model, weights, where).items())


def put(model: nn.Module, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Copy tensors into the model's by name, one after the other."""
    own = model.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, tensor in weights:
            own[name].copy_(tensor)


def matched(model: nn.Module, weights: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Return weights under the model's names.

    Names must be the model's, all of them and no others, except that a prefix that all of the model's have
    (`model.` in Lightning's files) is taken off, and what lies beside that prefix is let be. A tied parameter
    that the file has once is enough.

    Raises:
        CheckpointError: for other names or shapes, with near ones, and for weights with NaN or Inf.
    """
    own = model.state_dict(keep_vars=True)
    found = _renamed(weights, own)
    missing = _missing(own, found)
    extra = [name for name in found if name not in own]
    if missing or extra:
        raise CheckpointError(_difference(own, missing, extra, where))
    shapes = [name for name, tensor in found.items() if tensor.shape != own[name].shape]
    if shapes:
        words = "; ".join(
            f"{name!r} {tuple(found[name].shape)} in place of {tuple(own[name].shape)}" for name in shapes[:_SHOWN]
        )
        raise CheckpointError(
            f"expected the shapes of the model, got {words}{_more(shapes)} in {where}; it is of another "
            "architecture or another size: build the model as it was trained"
        )
    check_finite(found, where)
    return found


def check_finite(weights: Mapping[str, Tensor], where: str) -> None:
    """Refuse weights with NaN or Inf.

    Raises:
        CheckpointError: with the names of the first ones.
    """
    bad = [name for name, t in weights.items() if (t.is_floating_point() or t.is_complex()) and not _is_finite(t)]
    if bad:
        raise CheckpointError(
            f"expected finite weights, got NaN or Inf in {_names(bad)} ({len(bad)} of {len(weights)} tensors) in "
            f"{where}; the run had diverged: look at an earlier checkpoint"
        )


def _is_finite(tensor: Tensor) -> bool:
    wide = tensor if tensor.element_size() > 1 else tensor.float()  # torch has no isfinite for 8-bit floats
    return bool(wide.isfinite().all())


def _renamed(weights: Mapping[str, Tensor], own: Iterable[str]) -> dict[str, Tensor]:
    """Return the weights under the model's names: without a prefix, if with one all of them are there."""
    names = [name for name in own if not name.endswith(_MAY_BE_ABSENT)]
    if not names or any(name in weights for name in names):
        return dict(weights)
    ends = {name.removesuffix(names[0]) for name in weights if name.endswith(f".{names[0]}")}
    for prefix in sorted(ends, key=len):
        if sum(prefix + name in weights for name in names) > len(names) / 2:
            return {name.removeprefix(prefix): t for name, t in weights.items() if name.startswith(prefix)}
    return dict(weights)


def _missing(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Return the names that have no weights; a tied tensor that has some under another name is not among them."""
    filled = {id(own[name]) for name in found if name in own}
    return [
        name for name, tensor in own.items()
        if name not in found and id(tensor) not in filled and not name.endswith(_MAY_BE_ABSENT)
        and isinstance(tensor, Tensor)
    ]  # fmt: skip


def _difference(own: Mapping[str, Tensor], missing: Sequence[str], extra: Sequence[str], where: str) -> str:
    lines = []
    for name in missing[:_SHOWN]:
        near = get_close_matches(name, extra, 1, 0.6)
        lines.append(f"{name!r} is not there" + (f" (but {near[0]!r} is)" if near else ""))
    shown = " ".join(lines)
    lines += [f"{name!r} is not the model's" for name in extra[:_SHOWN] if repr(name) not in shown]
    counts = f"{len(missing)} of {len(own)} names missing, {len(extra)} unknown"
    return (
        f"expected the names of the model's weights, got others: {'; '.join(lines)} ({counts}) in {where}; build the "
        "model as it was trained"
    )


def _names(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:_SHOWN]) + _more(names)


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
