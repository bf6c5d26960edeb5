"""How large attention's logits grow, and how many keys a query looks at.

Seen are `nn.MultiheadAttention` (also inside `nn.TransformerEncoderLayer`), `scaled_dot_product_attention` called
anywhere, and attention written out as product, softmax, product (Hugging Face's "eager"). What counts as a logit, what
is masked and which rows count: see `attention_sums`.

Legend: L layers, H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainvitals.diagnostics.attention_sums import AttentionSums
from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Snapshot, Tier
from trainvitals.diagnostics.by_layer import by_layer
from trainvitals.schema import Chart, Question, Reading, Scale

_NOTHING = (
    "no attention was seen in the forward pass: neither nn.MultiheadAttention, scaled_dot_product_attention, "
    "nor a softmax between two products of batches of matrices"
)
_SOURCE = "Wortsman et al. 2023, Small-scale proxies for large-scale Transformer training instabilities, section 3.1.1"
_UNDEFINED = "No attention seen in the forward pass; a layer whose logits hold NaN or Inf, or are all masked."


def _values(
    layers: Mapping[str, AttentionSums], heads: bool, number: Callable[[AttentionSums], tuple[Tensor, Tensor]]
) -> Reading:
    """Return one number a layer, or one a head: `number` gives those of the heads (H,), and that of the layer ()."""
    values, left_out = {}, {}
    for name, sums in layers.items():
        if not bool(sums.is_finite):
            left_out[name] = "its logits hold NaN or Inf"
        elif int(sums.num_rows.sum()) == 0:
            left_out[name] = "all its logits are masked"
        elif heads:
            by_head, _ = number(sums)
            values |= {f"{name} · head {h}": float(value) for h, value in enumerate(by_head)}
        else:
            values[name] = float(number(sums)[1])
    return by_layer(values, left_out, _NOTHING)


def _checked(layers: Mapping[str, AttentionSums]) -> Mapping[str, AttentionSums]:
    if not layers:
        raise Missing(_NOTHING)
    return layers


@dataclass
class AttentionMaxLogit(Diagnostic):
    """Largest attention logit of each layer over the train probe: what the softmax over keys is taken of.

    Value (L,) in the order of the forward pass, exact on the probe; masked entries do not count. Logits that grow
    without end are the sign of attention that collapses onto single keys. Details: `left_out`, layers without a value
    and why.

    Args:
        heads: one value for each head in place of each layer.
    """

    name = "attention.max_logit"
    title = "Largest attention logit"
    question = Question.STABILITY
    summary = "How large the logits of attention grow in each layer."
    formula = r"\max_{h,t,s} \; q_{ht}^\top k_{hs} / \sqrt{d_h}"
    unit = "logits"
    undefined = _UNDEFINED
    source = _SOURCE
    needs = Needs.ATTENTION
    tier = Tier.FULL
    interval = 50
    chart = Chart.HEATMAP
    scale = Scale.SYMLOG
    keys = "layer"

    heads: bool = False

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return one logit per layer, or per head."""
        return _values(_checked(snapshot.attention), self.heads, lambda sums: (sums.largest, sums.largest.max()))


@dataclass
class AttentionEntropy(Diagnostic):
    """Mean entropy of the rows of each layer's attention, −Σ_s p_s log p_s over the keys that a query may look at.

    Value (L,) in nats, in the order of the forward pass, exact on the probe: the mean over sequences, heads and
    queries. At most the mean of the log of the number of unmasked keys, log T without a mask; that stands in the
    details as `limit`, by layer. 0 when every query looks at one key. Details also have `left_out`, layers without a
    value and why.

    Args:
        heads: one value for each head in place of each layer.
    """

    name = "attention.entropy"
    title = "Entropy of attention"
    question = Question.STABILITY
    summary = "Over how many keys attention is spread in each layer: falls to 0 as it collapses onto one."
    formula = r"-\operatorname*{mean}_{h,t} \sum_s p_s \log p_s,\ p = \operatorname{softmax}(K q_{ht} / \sqrt{d_h})"
    unit = "nats"
    undefined = _UNDEFINED
    source = "Zhai et al. 2023, Stabilizing Transformer Training by Preventing Attention Entropy Collapse, section 3"
    needs = Needs.ATTENTION
    tier = Tier.FULL
    interval = 50
    chart = Chart.HEATMAP
    keys = "layer"

    heads: bool = False

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return one entropy per layer, or per head."""
        layers = _checked(snapshot.attention)
        reading = _values(layers, self.heads, _entropies)
        limits = {name: float(sums.limit.sum() / sums.num_rows.sum().clamp(min=1)) for name, sums in layers.items()}
        return Reading(reading.value, keys=reading.keys, details={**reading.details, "limit": limits})


def _entropies(sums: AttentionSums) -> tuple[Tensor, Tensor]:
    of_layer = sums.entropy.sum() / sums.num_rows.sum()
    return sums.entropy / sums.num_rows.clamp(min=1), torch.as_tensor(of_layer)
