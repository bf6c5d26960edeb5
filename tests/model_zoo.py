"""Models and losses as people have them, each so small that its Hessian can be formed: P is tens to hundreds.

`cases.py` holds the models that every diagnostic is held against; these are for what a model or a loss can do to
curvature: attention kernels, recurrence, normalisation, odd parameters, losses by `forward=`.

Legend: N samples, T steps, D features, C classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

N, T, D, C = 10, 5, 4, 3


@dataclass(frozen=True)
class Entry:
    name: str
    make_model: Callable[[], nn.Module]
    make_batch: Callable[[torch.Generator], Any]
    loss: Callable[..., Tensor] | None = None
    forward: Callable[..., Any] | None = None
    modes: tuple[str, ...] = ("eval",)
    make_plain: Callable[[], nn.Module] | None = None  # the same function of the same weights, that torch can do twice

    def model(self, dtype: torch.dtype = torch.float64) -> nn.Module:
        """Return the model with weights moved off their special first values (zeros of biases, ones of norms)."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(len(self.name))
            model = self.make_model().to(dtype)
            with torch.no_grad():
                for p in model.parameters():
                    p += 0.1 * torch.randn(p.shape, dtype=torch.float64).to(dtype)
        return model

    def plain(self) -> nn.Module:
        """Return the model in the form in which the reference Hessian is taken."""
        model = self.model()
        if self.make_plain is not None:
            other = self.make_plain().double()
            other.load_state_dict(model.state_dict())
            model = other
        return model

    def dense_hessian(self, mode: str) -> Tensor:
        """Return the (P, P) Hessian in float64."""
        return dense_hessian_of(self.plain(), self.batch(), **self.arguments, mode=mode)

    def batch(self, dtype: torch.dtype = torch.float64) -> Any:
        return cast(self.make_batch(torch.Generator().manual_seed(3)), dtype)

    @property
    def arguments(self) -> dict[str, Any]:
        return {"loss": self.loss, "forward": self.forward}


def cast(batch: Any, dtype: torch.dtype) -> Any:
    if isinstance(batch, dict):
        return {k: cast(v, dtype) for k, v in batch.items()}
    if isinstance(batch, tuple):
        return tuple(cast(v, dtype) for v in batch)
    return batch.to(dtype) if isinstance(batch, Tensor) and batch.is_floating_point() else batch


@contextmanager
def twice_differentiable():
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), torch.enable_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def loss_of(model, batch, loss=None, forward=None) -> Tensor:
    """The mean loss as a training loop computes it."""
    if forward is not None:
        return forward(model, batch)[1].mean()
    return loss(model(batch[0]), batch[1])


def dense_hessian_of(model, batch, *, loss=None, forward=None, mode="eval", seed=0) -> Tensor:
    """Return the (P, P) Hessian, from double backward of torch's own. The model's buffers may change."""
    model.train(mode == "train")
    parameters = [p for p in model.parameters() if p.requires_grad]
    with twice_differentiable(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        value = loss_of(model, batch, loss, forward)
        first = torch.autograd.grad(value, parameters, create_graph=True, materialize_grads=True)
        flat = torch.cat([g.reshape(-1) for g in first])  # (P,)
        again = partial(torch.autograd.grad, flat, parameters, retain_graph=True, materialize_grads=True)
        try:
            rows = again(torch.eye(len(flat), dtype=torch.float64), is_grads_batched=True)
            H = torch.cat([r.reshape(len(flat), -1) for r in rows], 1)
        except RuntimeError:  # an operation that torch cannot batch
            H = torch.stack([torch.cat([r.reshape(-1) for r in again(e)]) for e in torch.eye(len(flat)).double()])
    H = H.detach()
    torch.testing.assert_close(H, H.T, rtol=0, atol=1e-6 * float(H.abs().max()))  # some compute parts in float32
    return H


# Batches ------------------------------------------------------------------------------------------


def vectors(g: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(N, D, generator=g), torch.arange(N) % C


def sequences(g: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(N, T, D, generator=g), torch.arange(N) % C


def padded(g: torch.Generator) -> dict[str, Tensor]:
    x, y = sequences(g)
    return {"x": x, "pad": torch.arange(T) >= (2 + torch.arange(N) % (T - 1))[:, None], "labels": y}


def images(g: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(N, 1, 4, 4, generator=g), torch.arange(N) % C


def word_batch(g: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randint(0, 7, (N, T), generator=g), torch.arange(N) % C


def to(make_targets: Callable[[torch.Generator], Tensor]) -> Callable[[torch.Generator], tuple[Tensor, Tensor]]:
    return lambda g: (torch.randn(N, D, generator=g), make_targets(g))


# Models -------------------------------------------------------------------------------------------


class Pooled(nn.Module):
    """Embeds (N, T, D), runs a body over the sequence, and classifies the mean."""

    def __init__(self, body: nn.Module, width: int = 4, call=lambda body, x: body(x)) -> None:
        super().__init__()
        self.embed, self.body, self.head = nn.Linear(D, 4), body, nn.Linear(width, C)
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        out = self.call(self.body, self.embed(x))
        return self.head((out[0] if isinstance(out, tuple) else out).mean(1))


def encoder(norm_first: bool) -> nn.Module:
    layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.2, batch_first=True, norm_first=norm_first)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


class PaddedEncoder(Pooled):
    def __init__(self) -> None:
        layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.1, batch_first=True)
        super().__init__(nn.TransformerEncoder(layer, 1))  # nested tensors, as torch's default has it

    def forward(self, x: Tensor, pad: Tensor) -> Tensor:
        out = self.body(self.embed(x), src_key_padding_mask=pad)
        return self.head(out.masked_fill(pad[..., None], 0).sum(1))


class PaddedAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(D, 2, dropout=0.1, batch_first=True), nn.Linear(D, C)

    def forward(self, x: Tensor, pad: Tensor, need_weights: bool = False) -> Tensor:
        return self.head(self.attention(x, x, x, key_padding_mask=pad, need_weights=need_weights)[0].mean(1))


def call_padded(model, batch, **options):
    z = model(batch["x"], batch["pad"], **options)
    return z, F.cross_entropy(z, batch["labels"])


class Scaled(nn.Module):
    """`F.scaled_dot_product_attention` called directly."""

    def __init__(self, *, causal: bool = False, masked: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.qkv, self.causal, self.dropout = nn.Linear(4, 12), causal, dropout
        self.register_buffer("mask", torch.randn(T, T) if masked else None)

    def forward(self, x: Tensor) -> Tensor:  # (N, T, 4)
        q, k, v = (part.unflatten(-1, (2, 2)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        p = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask, is_causal=self.causal, dropout_p=p)
        return out.transpose(1, 2).flatten(2)


class BatchNormNet(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, C))
        self[1].running_mean += 0.3
        self[1].running_var *= 2


class Odd(nn.Module):
    """Tied weights, a frozen layer, and a parameter that no pass uses."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen, self.encode, self.decode = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, D)
        self.decode.weight = self.encode.weight
        self.frozen.requires_grad_(False)
        self.unused, self.head = nn.Parameter(torch.ones(5)), nn.Linear(D, C)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.decode(torch.tanh(self.encode(torch.tanh(self.frozen(x)))))))


class Checkpointed(nn.Module):
    def __init__(self, use_reentrant: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(D, 6), nn.Tanh(), nn.Dropout(0.2), nn.Linear(6, 6), nn.Tanh())
        self.head, self.use_reentrant = nn.Linear(6, C), use_reentrant

    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.body, x, use_reentrant=self.use_reentrant))


def words(**options) -> nn.Module:
    return nn.Sequential(nn.Embedding(7, 3, **options), nn.Flatten(), nn.Linear(3 * T, C))


class PlainWeightNorm(nn.Module):
    """What torch's weight norm does. Its own second derivatives are wrong in torch 2.13: they are not symmetric."""

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        return g * v / v.norm(dim=1, keepdim=True)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return weight.norm(dim=1, keepdim=True), weight


def plain_weight_norm(layer: nn.Linear) -> nn.Linear:
    nn.utils.parametrize.register_parametrization(layer, "weight", PlainWeightNorm())
    return layer


def old_weight_norm(layer: nn.Linear) -> nn.Module:
    with warnings.catch_warnings():  # that it is deprecated
        warnings.simplefilter("ignore")
        return nn.utils.weight_norm(layer)


class HookedWeightNorm(nn.Linear):
    """The same with the parameters that the hook of `torch.nn.utils.weight_norm` makes."""

    def __init__(self) -> None:
        super().__init__(D, 5)
        weight = self._parameters.pop("weight")
        self.weight_g = nn.Parameter(weight.detach().norm(dim=1, keepdim=True))
        self.weight_v = nn.Parameter(weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight_g * self.weight_v / self.weight_v.norm(dim=1, keepdim=True), self.bias)


def mlp(width: int = C) -> nn.Module:
    return nn.Sequential(nn.Linear(D, 5), nn.Tanh(), nn.Linear(5, width))


def normed(norm: Callable[[nn.Module], nn.Module]) -> nn.Module:
    return nn.Sequential(norm(nn.Linear(D, 5)), nn.Tanh(), nn.Dropout(0.2), nn.Linear(5, C))


# Losses that take more than (outputs, targets) -------------------------------------------------------


def cosine_embedding(model, batch):
    a, b, sign = model(batch["a"]), model(batch["b"]), batch["sign"]
    return a, F.cosine_embedding_loss(a, b, sign, margin=0.1)


def triplet(model, batch):
    a, b, c = (model(batch[name]) for name in "abc")
    return a, F.triplet_margin_loss(a, b, c, margin=5.0)


def several(g: torch.Generator) -> dict[str, Tensor]:
    inputs = {name: torch.randn(N, D, generator=g) for name in "abc"}
    return inputs | {"sign": torch.arange(N) % 2 * 2 - 1}


def several_inputs(model, batch):
    x, scale, y = batch
    z = model(x) * scale
    return {"logits": z, "extra": x}, F.cross_entropy(z, y, reduction="none")


both = ("eval", "train")
ce = F.cross_entropy
weights = torch.tensor([0.3, 1.0, 2.5], dtype=torch.float64)

MODELS = [
    Entry("transformer post-norm", lambda: Pooled(encoder(False)), sequences, ce, modes=both),
    Entry("transformer pre-norm", lambda: Pooled(encoder(True)), sequences, ce, modes=both),
    Entry("transformer padded", PaddedEncoder, padded, forward=call_padded, modes=both),
    Entry("attention padded", PaddedAttention, padded, forward=call_padded, modes=both),
    Entry("attention weights", PaddedAttention, padded, forward=partial(call_padded, need_weights=True)),
    Entry("sdpa", lambda: Pooled(Scaled()), sequences, ce),
    Entry("sdpa causal dropout", lambda: Pooled(Scaled(causal=True, dropout=0.2)), sequences, ce, modes=both),
    Entry("sdpa mask", lambda: Pooled(Scaled(masked=True)), sequences, ce),
    Entry("lstm", lambda: Pooled(nn.LSTM(4, 3, batch_first=True, bidirectional=True), 6), sequences, ce),
    Entry("gru dropout", lambda: Pooled(nn.GRU(4, 3, 2, batch_first=True, dropout=0.2), 3), sequences, ce, modes=both),
    Entry("rnn", lambda: Pooled(nn.RNN(4, 5, batch_first=True), 5), sequences, ce),
    Entry("lstm cell", lambda: Pooled(nn.LSTMCell(4, 4), 4, lambda cell, x: cell(x[:, 0])[0][:, None]), sequences, ce),
    Entry("batch norm", BatchNormNet, images, ce, modes=both),
    Entry("group norm", lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.SiLU(), nn.Flatten(),
                                              nn.Linear(16, C)), images, ce),
    Entry("dropout", lambda: normed(lambda layer: layer), vectors, ce, modes=both),
    Entry("tied frozen unused", Odd, vectors, ce),
    Entry("embedding padding", lambda: words(padding_idx=0), word_batch, ce),
    Entry("embedding max norm", lambda: words(max_norm=0.7), word_batch, ce),
    Entry("embedding sparse", lambda: words(sparse=True), word_batch, ce, make_plain=words),
    Entry("weight norm", lambda: normed(parametrizations.weight_norm), vectors, ce, modes=both,
          make_plain=lambda: normed(plain_weight_norm)),
    Entry("spectral norm", lambda: normed(parametrizations.spectral_norm), vectors, ce, modes=both),
    Entry("orthogonal", lambda: normed(lambda m: parametrizations.orthogonal(m, orthogonal_map="cayley")), vectors, ce),
    Entry("weight norm by hook", lambda: normed(old_weight_norm), vectors, ce,
          make_plain=lambda: normed(lambda layer: HookedWeightNorm())),
    Entry("spectral norm by hook", lambda: normed(nn.utils.spectral_norm), vectors, ce, modes=both),
    Entry("checkpointed", lambda: Checkpointed(False), vectors, ce, modes=both),
    Entry("checkpointed reentrant", lambda: Checkpointed(True), vectors, ce, modes=both,
          make_plain=lambda: Checkpointed(False)),
    Entry("data parallel", lambda: nn.DataParallel(mlp()), vectors, ce),
]  # fmt: skip

LOSSES = [
    Entry("cross entropy smoothed and weighted", mlp, vectors, partial(ce, weight=weights, label_smoothing=0.1)),
    Entry("cross entropy of probabilities", mlp, to(lambda g: torch.rand(N, C, generator=g)), ce),
    Entry("cross entropy module", mlp, vectors, nn.CrossEntropyLoss(weight=weights)),
    Entry("negative log likelihood", lambda: nn.Sequential(mlp(), nn.LogSoftmax(1)), vectors, F.nll_loss),
    Entry("binary cross entropy", mlp, to(lambda g: torch.rand(N, C, generator=g).round()),
          F.binary_cross_entropy_with_logits),
    Entry("mean squared", mlp, to(lambda g: torch.randn(N, C, generator=g)), F.mse_loss),
    Entry("absolute", mlp, to(lambda g: torch.randn(N, C, generator=g)), F.l1_loss),
    Entry("huber", mlp, to(lambda g: torch.randn(N, C, generator=g)), F.huber_loss),
    Entry("smooth absolute", mlp, to(lambda g: torch.randn(N, C, generator=g)), F.smooth_l1_loss),
    Entry("divergence", lambda: nn.Sequential(mlp(), nn.LogSoftmax(1)),
          to(lambda g: torch.rand(N, C, generator=g).softmax(1)), partial(F.kl_div, reduction="batchmean")),
    Entry("poisson", mlp, to(lambda g: torch.rand(N, C, generator=g)), F.poisson_nll_loss),
    Entry("cosine embedding", mlp, several, forward=cosine_embedding),
    Entry("triplet", mlp, several, forward=triplet),
    Entry("several inputs", mlp, lambda g: (torch.randn(N, D, generator=g), torch.rand(N, 1, generator=g),
                                            torch.arange(N) % C), forward=several_inputs),
]  # fmt: skip

# Torch has no second derivative of these.
WITHOUT_DOUBLE_BACKWARD = [
    Entry("multi margin", mlp, vectors, F.multi_margin_loss),
    Entry("embedding bag", lambda: nn.Sequential(nn.EmbeddingBag(7, 3), nn.Linear(3, C)), word_batch, ce),
    Entry("connectionist", lambda: nn.Sequential(nn.Linear(D, 5), nn.Tanh(), nn.Linear(5, C)), sequences,
          forward=lambda model, batch: (None, F.ctc_loss(
              model(batch[0]).log_softmax(-1).transpose(0, 1), batch[1][:, None] % 2 + 1, (T,) * N, (1,) * N))),
]  # fmt: skip

ENTRIES = MODELS + LOSSES
IN_MODES = [(entry, mode) for entry in ENTRIES for mode in entry.modes]
FAST = ["transformer padded", "gru dropout", "batch norm", "weight norm", "cross entropy module", "triplet"]


def slow_but_some(entries: list[Entry]) -> list[Any]:
    """Return the entries as parameters of a test that is fast for some of them only."""
    return [
        pytest.param(entry, id=entry.name, marks=[] if entry.name in FAST else [pytest.mark.slow]) for entry in entries
    ]
