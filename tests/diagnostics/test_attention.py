"""Attention's logits and entropy on whole models, and the reason where there is none."""

import math

import pytest
import torch
import torch.nn.functional as F
from cases import CASES
from fake_snapshot import FakeSnapshot
from hugging_face import PRETRAINED, call
from torch import nn

import trainvitals as tv
from trainvitals.diagnostics.attention import AttentionEntropy, AttentionMaxLogit
from trainvitals.diagnostics.attention_sums import of_logits
from trainvitals.diagnostics.base import Missing

WHAT = ["attention.max_logit", "attention.entropy"]
TRANSFORMER = next(case for case in CASES if case.name == "transformer")


def by_hand(model, x):
    """Largest logit and mean entropy of the case's one attention layer, one head at a time."""
    attention = model.encoder.self_attn
    q, k, _ = F.linear(model.embed(x), attention.in_proj_weight, attention.in_proj_bias).detach().chunk(3, -1)
    width = q.shape[-1] // attention.num_heads
    logits = [
        q[..., h * width : (h + 1) * width] @ k[..., h * width : (h + 1) * width].mT / math.sqrt(width)
        for h in range(attention.num_heads)
    ]
    entropies = [float(torch.special.entr(z.softmax(-1)).sum(-1).mean()) for z in logits]
    return [float(z.max()) for z in logits], entropies


@pytest.mark.parametrize("extra", [[], ["grad.norm"], ["hessian.top"]])
def test_numbers_equal_those_by_hand_whatever_else_is_measured(extra):
    built = TRANSFORMER.build()
    largest, entropies = by_hand(built.model, built.batch[0])
    readings = tv.measure(built.model, loss=built.loss, batch=built.batch, what=[*WHAT, *extra])
    assert readings["attention.max_logit"].keys == ("encoder.self_attn",)
    assert readings["attention.max_logit"].value.tolist() == pytest.approx([max(largest)])
    assert readings["attention.entropy"].value.tolist() == pytest.approx([sum(entropies) / 2])
    assert readings["attention.entropy"].details["limit"] == pytest.approx({"encoder.self_attn": math.log(5)})
    assert readings["attention.entropy"].provenance["forward_passes"] == 0  # the other's pass served


def test_each_head_on_its_own():
    built = TRANSFORMER.build()
    largest, entropies = by_hand(built.model, built.batch[0])
    options = {name: {"heads": True} for name in WHAT}
    readings = tv.measure(built.model, loss=built.loss, batch=built.batch, what=options)
    assert readings[WHAT[0]].keys == ("encoder.self_attn · head 0", "encoder.self_attn · head 1")
    assert readings[WHAT[0]].value.tolist() == pytest.approx(largest)
    assert readings[WHAT[1]].value.tolist() == pytest.approx(entropies)


def test_uneven_batches_give_what_one_batch_gives():
    built = TRANSFORMER.build()
    x, y = built.batch
    split = [(x[:5], y[:5]), (x[5:6], y[5:6]), (x[6:], y[6:])]
    whole = tv.measure(built.model, loss=built.loss, batch=(x, y), what=WHAT)
    parts = tv.measure(built.model, loss=built.loss, batch=split, what=WHAT)
    for name in WHAT:
        assert parts[name].value.tolist() == pytest.approx(whole[name].value.tolist(), rel=1e-12)


def test_logits_grow_with_the_weights_and_entropy_falls():
    built = TRANSFORMER.build()
    before = tv.measure(built.model, loss=built.loss, batch=built.batch, what=WHAT)
    with torch.no_grad():
        built.model.encoder.self_attn.in_proj_weight[:16] *= 3
        built.model.encoder.self_attn.in_proj_bias[:16] *= 3
    after = tv.measure(built.model, loss=built.loss, batch=built.batch, what=WHAT)
    assert after[WHAT[0]].value[0] == pytest.approx(9 * before[WHAT[0]].value[0])
    assert after[WHAT[1]].value[0] < before[WHAT[1]].value[0]


@pytest.mark.parametrize("pretrained", PRETRAINED, ids=lambda p: p.name)
def test_hugging_face_models_have_a_value_within_its_limit(pretrained):
    readings = tv.measure(pretrained.model(), forward=call, batch=pretrained.split(), what=WHAT)
    reading = readings["attention.entropy"]
    (limit,) = reading.details["limit"].values()
    assert 0 < reading.value[0] <= limit * (1 + 1e-9)
    assert readings["attention.max_logit"].keys == reading.keys


def test_a_model_without_attention_is_missing_with_the_reason():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    readings = tv.measure(model, loss=F.cross_entropy, batch=(torch.randn(9, 4), torch.arange(9) % 3), what=WHAT)
    for name in WHAT:
        assert readings[name].missing.startswith("no attention was seen in the forward pass")


@pytest.mark.parametrize(
    ("logits", "reason"),
    [
        (torch.full((1, 1, 2, 2), math.nan), "a: its logits hold NaN or Inf"),
        (torch.full((1, 1, 2, 2), -math.inf), "a: all its logits are masked"),
    ],
)
def test_layers_without_a_value_say_why(logits, reason):
    for cls in (AttentionMaxLogit, AttentionEntropy):
        with pytest.raises(Missing, match=reason):
            cls().measure(FakeSnapshot(attention={"a": of_logits(logits)}))
        both = cls().measure(FakeSnapshot(attention={"a": of_logits(logits), "b": of_logits(torch.zeros(1, 1, 2, 2))}))
        assert both.keys == ("b",)
        assert set(both.details["left_out"]) == {"a"}
