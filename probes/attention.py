"""Attention, seen as it is computed, in whatever way: what its rows sum up to is kept, its matrix is not.

Three ways are seen: `scaled_dot_product_attention`, called anywhere; `nn.MultiheadAttention`, whose function hides
what it calls from torch-function modes and is therefore run in a copy that does not; and attention written out, as
Hugging Face's "eager" is: a product of two batches of matrices, then a softmax over the last dimension, then a product
with another batch. Only the three together are attention: a mixture of experts is not. Kernels that compute it without
any of these (xformers, flash_attn, flex_attention) are not seen.

Legend: B sequences, H heads, T queries, S keys, E features of a head.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from trainvitals.diagnostics.attention_sums import AttentionSums, of_logits, of_products
from trainvitals.probes.module_recorder import ModuleRecorder

_SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax)
_PRODUCTS = ("matmul", "__matmul__", "bmm", "baddbmm", "einsum")
_STOPS = ("linear", "softmax", "log_softmax", "layer_norm", "embedding")  # what comes out is something else


@dataclass(frozen=True)
class _Trace:
    """What is known of a tensor on its way through attention: scores before the softmax, weights after it."""

    name: str  # of the module
    sums: AttentionSums | None  # of weights; None for scores


class AttentionCapture:
    """Collects the sums of each attention layer over the batches of a probe.

    Args:
        model: the module to be called inside `capturing()`, already lent by the bystander.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.layers: dict[str, AttentionSums] = {}  # by module name, in the order of the forward pass

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """Add what one forward pass computes. A failed pass adds nothing."""
        recorder = _Recorder(self._model)
        with recorder.recording():
            yield
        for name, sums in recorder.layers.items():
            self.layers[name] = self.layers[name] + sums if name in self.layers else sums


class _Recorder(ModuleRecorder):
    """Records one forward pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._traces: Any = WeakIdKeyDictionary()  # tensor -> _Trace
        self._num_heads: int | None = None  # inside `multi_head_attention_forward`
        self.layers: dict[str, AttentionSums] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:
            return self._multi_head(func, args, kwargs)
        output = func(*args, **kwargs)
        with torch.no_grad():
            if func is F.scaled_dot_product_attention:
                self._see_products(*args, **kwargs)
            elif isinstance(output, Tensor):
                self._follow(func, args, kwargs, output)
        return output

    def _multi_head(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run torch's function with this mode inside, which its own first line would keep out."""
        before, self._num_heads = self._num_heads, args[4] if len(args) > 4 else kwargs["num_heads"]
        try:
            with self:
                return _opened(func)(*args, **kwargs)
        finally:
            self._num_heads = before

    def _see_products(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> None:
        query, key = query.detach(), key.detach()
        if enable_gqa:
            key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        materialize = getattr(attn_mask, "_materialize", None)
        if materialize is not None:  # of torch.nn.attention.bias: a mask that is not there until it is needed
            attn_mask = materialize(query.device)
        lead = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2])
        query, key = (x.expand(*lead, *x.shape[-2:]) for x in (query, key))
        shape = (*lead, query.shape[-2], key.shape[-2])
        mask = None if attn_mask is None else _with_heads(attn_mask.detach().expand(shape))
        self._add(self._name(), of_products(_with_heads(query), _with_heads(key), mask, is_causal, scale))

    def _follow(self, func: Callable[..., Any], args: Any, kwargs: Any, output: Tensor) -> None:
        """Trace products to a softmax, and the softmax to a product: then it was attention."""
        name = getattr(func, "__name__", "")
        operands = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        traced = [self._traces[x] for x in operands if x in self._traces]
        if name in _PRODUCTS:
            weights = [trace for trace in traced if trace.sums is not None]
            if weights and len(operands) > 1 and all(x.ndim > 2 for x in operands):
                self._add(weights[0].name, weights[0].sums)
            elif sum(x.ndim > 2 for x in operands) > 1 and output.ndim > 2:
                self._traces[output] = _Trace(self._name(), None)
        elif func in _SOFTMAX:
            scores = args[0] if args else kwargs["input"]
            dim = args[1] if len(args) > 1 else kwargs.get("dim")
            if traced and traced[0].sums is None and dim in (-1, scores.ndim - 1):
                self._traces[output] = _Trace(traced[0].name, of_logits(self._heads_apart(scores.detach())))
        elif traced and name not in _STOPS and output.numel() == max(x.numel() for x in operands):
            self._traces[output] = traced[0]

    def _heads_apart(self, scores: Tensor) -> Tensor:
        """Return (B, H, T, S): torch's own function has heads and sequences in one dimension (B·H, T, S)."""
        if self._num_heads is not None and scores.ndim == 3:
            scores = scores.unflatten(0, (-1, self._num_heads))
        return _with_heads(scores)

    def _name(self) -> str:
        return self._stack[-1] if self._stack else "model"

    def _add(self, name: str, sums: AttentionSums | None) -> None:
        if sums is None:
            return
        number, unused = 1, name
        while unused in self.layers:
            number += 1
            unused = f"{name}#{number}"
        self.layers[unused] = sums


def _with_heads(x: Tensor) -> Tensor:
    """Return (B, H, T, ...) of a tensor with any dimensions in front: the last of them are the heads."""
    if x.ndim < 4:
        return x[None, None] if x.ndim == 2 else x[:, None]
    return x if x.ndim == 4 else x.flatten(0, -4)


def _opened(function: Any) -> Callable[..., Any]:
    """Return a copy of a function of torch's that does not ask whether a torch-function mode would take the call."""
    copy = types.FunctionType(
        function.__code__,
        function.__globals__ | {"has_torch_function": lambda *_: False},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy
