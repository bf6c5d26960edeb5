"""Attention is seen however it is computed, and only what is attention."""

import math

import pytest
import torch
import torch.nn.functional as F
from hugging_face import PRETRAINED
from torch import nn
from torch.nn.attention.bias import causal_lower_right, causal_upper_left

from trainvitals.diagnostics.attention_sums import of_logits
from trainvitals.probes.attention import AttentionCapture
from trainvitals.probes.bystander import bystander

N, T, D, H = 4, 5, 8, 2


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seen(model, *args, mode="eval", **kwargs):
    capture = AttentionCapture(model)
    with bystander(model, mode=mode), torch.no_grad(), capture.capturing():
        output = model(*args, **kwargs)
    return capture.layers, output


def same(found, expected):
    for name in ("largest", "entropy", "limit", "num_rows"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-9, atol=1e-9)


def by_hand(attention, x, mask=None):
    """The sums of `nn.MultiheadAttention` on itself, from its weights; mask True where a key is hidden."""
    q, k, _ = F.linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, -1)
    q, k = (part.unflatten(-1, (H, D // H)).transpose(1, 2) for part in (q, k))
    z = (q @ k.transpose(2, 3) / math.sqrt(D // H)).detach()
    return of_logits(z if mask is None else z.masked_fill(mask, -math.inf))


class Attends(nn.Module):
    def __init__(self, need_weights, batch_first=True) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(D, H, dropout=0.3, batch_first=batch_first, dtype=torch.float64)
        self.need_weights = need_weights

    def forward(self, x, **masks):
        return self.attention(x, x, x, need_weights=self.need_weights, **masks)[0]


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("mask", ["none", "padding", "causal", "both", "numbers"])
def test_multihead_attention(need_weights, mode, mask):
    model, x = Attends(need_weights).train(mode == "train"), draw(N, T, D)
    padding = torch.arange(T) >= torch.tensor([5, 3, 1, 2])[:, None]
    causal = torch.ones(T, T).triu(1).bool()
    masks = {
        "none": {}, "padding": {"key_padding_mask": padding}, "causal": {"attn_mask": causal},
        "both": {"key_padding_mask": padding, "attn_mask": causal},
        "numbers": {"attn_mask": torch.zeros(T, T).double().masked_fill(causal, -math.inf)},
    }[mask]  # fmt: skip
    hidden = {"none": None, "padding": padding[:, None, None], "causal": causal, "numbers": causal,
              "both": padding[:, None, None] | causal}[mask]  # fmt: skip
    found, _ = seen(model, x, mode=mode, **masks)
    assert list(found) == ["attention"]
    same(found["attention"], by_hand(model.attention, x, hidden))


def test_sequences_first_and_a_batch_of_one_sequence_and_cross_attention():
    model, x = Attends(False, batch_first=False), draw(T, N, D)
    same(seen(model, x)[0]["attention"], by_hand(model.attention, x.transpose(0, 1)))
    same(seen(model, x[:, 0])[0]["attention"], by_hand(model.attention, x[:, :1].transpose(0, 1)))


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_stock_transformer_layers_and_their_fast_path(mode, norm_first):
    layer = nn.TransformerEncoderLayer(D, H, 16, batch_first=True, norm_first=norm_first, dtype=torch.float64)
    model, x = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).train(mode == "train"), draw(N, T, D)
    found, _ = seen(model, x, mode=mode)
    assert list(found) == ["layers.0.self_attn", "layers.1.self_attn"]
    first = model.layers[0]
    same(found["layers.0.self_attn"], by_hand(first.self_attn, first.norm1(x) if norm_first else x))


def test_a_decoder_has_two_attentions_and_padded_nested_input_is_seen():
    decoder = nn.TransformerDecoderLayer(D, H, 16, batch_first=True, dtype=torch.float64)
    assert list(seen(decoder, draw(N, T, D), draw(N, 3, D))[0]) == ["self_attn", "multihead_attn"]
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(D, H, 16, batch_first=True, dtype=torch.float64), 1)
    padding = torch.arange(T) >= torch.tensor([5, 3, 1, 2])[:, None]
    found, _ = seen(model, draw(N, T, D), src_key_padding_mask=padding)
    same(found["layers.0.self_attn"], by_hand(model.layers[0].self_attn, draw(N, T, D), padding[:, None, None]))


class Calls(nn.Module):
    """Calls a function of (q, k, v), each (N, H, T, D)."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function, self.weight = function, nn.Parameter(torch.ones(1))

    def forward(self, q, k, v):
        return self.function(q, k, v)


MASK = torch.rand(N, 1, T, T, generator=torch.Generator().manual_seed(3)) < 0.7
BIAS = draw(H, T, T, seed=4)


def hidden(mask):
    return lambda z: z.masked_fill(~mask, -math.inf)


CALLS = {  # how it is called, and what the logits are
    "plain": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v), lambda z: z),
    "scale": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.2), lambda z: z * 0.2 * math.sqrt(D)),
    "causal": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
               hidden(torch.ones(T, T).bool().tril())),
    "booleans": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=MASK), hidden(MASK)),
    "numbers": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, BIAS), lambda z: z + BIAS),
    "upper left": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, causal_upper_left(T, T)),
                   hidden(torch.ones(T, T).bool().tril())),
    "lower right": (lambda q, k, v: F.scaled_dot_product_attention(q[:, :, :3], k, v, causal_lower_right(3, T)),
                    lambda z: z[:, :, :3].masked_fill(~torch.ones(3, T).bool().tril(T - 3), -math.inf)),
    "grouped queries": (lambda q, k, v: F.scaled_dot_product_attention(q, k[:, :1], v[:, :1], enable_gqa=True), None),
    "written out": (lambda q, k, v: (q @ k.transpose(2, 3) / math.sqrt(D)).softmax(-1) @ v, lambda z: z),
    "masked": (lambda q, k, v: torch.matmul(torch.softmax((q @ k.mT / math.sqrt(D)).masked_fill(~MASK, -1e9), 3), v),
               hidden(MASK)),
    "biased in place": (lambda q, k, v: F.dropout(F.softmax(torch.matmul(q, k.mT).div_(math.sqrt(D)).add_(BIAS), -1),
                                                  0.1, training=False) @ v, lambda z: z + BIAS),
    "einsum": (lambda q, k, v: torch.einsum("nhts,nhsd->nhtd",
                                            (torch.einsum("nhtd,nhsd->nhts", q, k) / math.sqrt(D)).softmax(-1), v),
               lambda z: z),
    "cast": (lambda q, k, v: F.softmax(q @ k.mT / math.sqrt(D), -1, dtype=torch.float32).to(v.dtype) @ v, lambda z: z),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_calls_of_one_s_own(name):
    call, logits = CALLS[name]
    q, k, v = (draw(N, H, T, D, seed=s) for s in range(3))
    keys = k if logits is not None else k[:, :1].expand_as(k)
    z = q @ keys.transpose(2, 3) / math.sqrt(D)
    found, output = seen(Calls(call), q, k, v)
    assert list(found) == ["model"]
    same(found["model"], of_logits(z if logits is None else logits(z)))
    torch.testing.assert_close(output, call(q, k, v))


def test_one_head_and_windows_in_front_are_seen():
    call = Calls(lambda q, k, v: F.scaled_dot_product_attention(q, k, v))
    q, k, v = (draw(N, T, D, seed=s) for s in range(3))
    same(seen(call, q, k, v)[0]["model"], of_logits((q @ k.mT / math.sqrt(D))[:, None]))
    q, k, v = (draw(N, 3, H, T, D, seed=s) for s in range(3))
    same(seen(call, q, k, v)[0]["model"], of_logits((q @ k.mT / math.sqrt(D)).flatten(0, 1)))


def test_two_calls_in_one_module_have_numbers():
    def twice(q, k, v):
        return F.scaled_dot_product_attention(q, k, F.scaled_dot_product_attention(q, k, v))

    assert list(seen(Calls(twice), *(draw(N, H, T, D) for _ in range(3)))[0]) == ["model", "model#2"]


NOT_ATTENTION = {
    "a classifier of tokens": lambda x: nn.Linear(D, 3, dtype=torch.float64)(x).softmax(-1),
    "experts": lambda x: torch.einsum("nte,nted->ntd", F.linear(x, draw(3, D)).softmax(-1), draw(N, T, 3, D)),
    "a softmax over queries": lambda x: (x @ x.mT).softmax(1) @ x,
    "a product alone": lambda x: x @ x.mT @ x,
    "weights that nobody uses": lambda x: (x @ x.mT).softmax(-1).sum(-1),
}


@pytest.mark.parametrize("name", NOT_ATTENTION)
def test_what_is_no_attention_is_not_taken_for_it(name):
    class Model(nn.Module):
        def forward(self, x):
            return NOT_ATTENTION[name](x)

    assert seen(Model(), draw(N, T, D))[0] == {}


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "vit"])
def test_hugging_face_eager_and_sdpa_say_the_same(name):
    found = {}
    for pretrained in PRETRAINED:
        if pretrained.name.startswith(name):
            model, batch = pretrained.model(), pretrained.batch()
            found[pretrained.attention], _ = seen(model, **batch)
    assert found["eager"].keys() == found["sdpa"].keys()
    assert len(found["eager"]) == 1
    for layer, sums in found["eager"].items():
        same(found["sdpa"][layer], sums)


@pytest.mark.parametrize("name", ["bert eager", "gpt2 eager", "llama eager"])
def test_hugging_face_weights_have_this_entropy(name):
    pretrained = next(p for p in PRETRAINED if p.name == name)
    model, batch = pretrained.model(), pretrained.batch()
    p = model(**batch, output_attentions=True).attentions[0].detach()  # (N, H, T, T)
    kept = batch["attention_mask"].bool()
    expected = torch.special.entr(p).sum(-1).transpose(1, 2)[kept]  # of queries that are no padding, (R, H)
    (sums,) = seen(model, **batch)[0].values()
    # Llama takes its softmax in float32
    torch.testing.assert_close(sums.entropy, expected.sum(0).double(), rtol=1e-5, atol=1e-6)
    assert sums.num_rows.tolist() == [int(kept.sum())] * p.shape[1]


def test_nothing_of_the_matrix_is_kept_and_random_numbers_are_those_of_the_pass():
    model, x = Attends(True).train(), draw(N, T, D)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        plain = model(x).detach()
        after = torch.rand(1)
        torch.manual_seed(7)
        capture = AttentionCapture(model)
        with capture.capturing():
            watched = model(x)
        assert torch.equal(watched, plain)
        assert torch.equal(torch.rand(1), after)
    assert all(t.numel() <= H for sums in capture.layers.values() for t in vars(sums).values())
    assert not model._forward_hooks
    assert not model.attention._forward_pre_hooks


def test_a_failed_pass_adds_nothing():
    def fails(q, k, v):
        F.scaled_dot_product_attention(q, k, v)
        raise RuntimeError("no")

    model = Calls(fails)
    capture = AttentionCapture(model)
    with pytest.raises(RuntimeError, match="no"), capture.capturing():
        model(*(draw(N, H, T, D) for _ in range(3)))
    assert capture.layers == {}
