"""Residual additions are seen however they are written, and only they."""

import pytest
import torch
import torch.nn.functional as F
from hugging_face import PRETRAINED
from torch import nn

from trainvitals.probes.bystander import bystander
from trainvitals.probes.residual_stream import ResidualCapture

N, T, D = 4, 5, 8


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seen(model, *args, mode="eval", **kwargs):
    capture = ResidualCapture(model)
    with bystander(model, mode=mode), torch.no_grad(), capture.capturing():
        output = model(*args, **kwargs)
    return {name: (float(s.branch), float(s.stream)) for name, s in capture.branches.items()}, output


def squares(*tensors):
    return tuple(float(t.double().square().sum()) for t in tensors)


class Calls(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function, self.fc, self.other = function, nn.Linear(D, D), nn.Linear(D, D)
        self.double()

    def forward(self, x):
        return self.function(self, self.fc(x))  # the stream starts behind a layer


RESIDUAL = {
    "added behind": lambda m, x: x + m.other(x),
    "added in front": lambda m, x: m.other(x) + x,
    "in place": lambda m, x: x.add_(m.other(x)),
    "in place by an operator": lambda m, x: x.__iadd__(F.dropout(torch.tanh(m.other(x)), 0.0)),
    "a function": lambda m, x: torch.add(x, m.other(x)),
    "a copy kept": lambda m, x: x.clone() + m.other(x),
    "a view of it": lambda m, x: (x.view(-1, D) + m.other(x).view(-1, D)).view_as(x),
    "attention": lambda m, x: x + F.scaled_dot_product_attention(x, x, x),
    "a product": lambda m, x: x + x @ m.other.weight,
    "through a transpose": lambda m, x: x + (m.other.weight[:T, :T] @ x.mT.mT),
}


@pytest.mark.parametrize("name", RESIDUAL)
def test_both_sides_are_summed(name):
    model, x = Calls(RESIDUAL[name]), draw(N, T, D)
    found, output = seen(model, x)
    stream = model.fc(x).detach()
    expected = RESIDUAL[name](model, stream.clone()).detach()
    torch.testing.assert_close(output, expected)
    assert found == {"model": pytest.approx(squares(expected - stream, stream))}


def test_a_factor_on_the_branch_counts():
    model, x = Calls(lambda m, x: torch.add(x, m.other(x), alpha=0.5)), draw(N, T, D)
    stream = model.fc(x).detach()
    assert seen(model, x)[0] == {"model": pytest.approx(squares(0.5 * model.other(stream).detach(), stream))}


NOT_RESIDUAL = {
    "two branches": lambda m, x: m.other(x) + m.other(torch.tanh(x)),
    "a function of it without a layer": lambda m, x: x + 0.1 * x**3,
    "a weight": lambda m, x: x + m.other.weight[:1, :1].expand_as(x),
    "a number": lambda m, x: m.other(x) + 1,
    "a bias": lambda m, x: m.other(x) + m.other.bias,
    "a gate": lambda m, x: torch.sigmoid(x) * m.other(x) + (1 - torch.sigmoid(x)) * torch.tanh(m.fc(m.other(x))),
    "a shortcut with a layer": lambda m, x: m.fc(x) + m.other(m.other(x)),
    "a product": lambda m, x: x * m.other(x),
}


@pytest.mark.parametrize("name", NOT_RESIDUAL)
def test_other_additions_are_not_taken_for_one(name):
    assert seen(Calls(NOT_RESIDUAL[name]), draw(N, T, D))[0] == {}


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_stock_transformer_layers_have_two(norm_first, mode):
    layer = nn.TransformerEncoderLayer(D, 2, 16, dropout=0.0, batch_first=True, norm_first=norm_first).double()
    model, x = nn.Sequential(nn.Linear(D, D).double(), layer).train(mode == "train"), draw(N, T, D)
    found, output = seen(model, x, mode=mode)
    x = model[0](x).detach()
    with torch.no_grad():
        attended = layer.norm1(x) if norm_first else x
        first = layer.self_attn(attended, attended, attended, need_weights=False)[0]
        middle = x + first if norm_first else layer.norm1(x + first)
        second = layer.linear2(F.relu(layer.linear1(layer.norm2(middle) if norm_first else middle)))
    assert found == {"1": pytest.approx(squares(first, x)), "1#2": pytest.approx(squares(second, middle))}
    torch.testing.assert_close(output, middle + second if norm_first else layer.norm2(middle + second).detach())


class Block(nn.Module):
    def __init__(self, stride) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, stride, 1)
        self.shortcut = nn.Conv2d(3, 3, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x):
        out = torch.relu(self.conv(x))
        out += self.shortcut(x)
        return F.relu(out, inplace=True)


def test_residual_blocks_of_images_are_seen_but_for_those_that_downsample():
    model = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), Block(1), Block(2), Block(1)).double()
    x = draw(N, 1, 8, 8)
    found, _ = seen(model, x)
    stream = model[0](x).detach()
    assert found.keys() == {"1", "3"}
    assert found["1"] == pytest.approx(squares(torch.relu(model[1].conv(stream)).detach(), stream))


@pytest.mark.parametrize("pretrained", PRETRAINED, ids=lambda p: p.name)
def test_hugging_face_blocks_have_an_attention_and_a_feed_forward_branch(pretrained):
    model, batch = pretrained.model(), pretrained.batch()
    found, _ = seen(model, **batch)
    assert len(found) == 2
    assert all(branch > 0 and stream > 0 for branch, stream in found.values())


def test_the_stream_of_gpt2_is_its_embedding():
    gpt2 = next(p for p in PRETRAINED if p.name == "gpt2 eager")
    model, batch = gpt2.model(), gpt2.batch()
    found, _ = seen(model, **batch)
    hidden = model(**batch, output_hidden_states=True).hidden_states[0].detach()
    assert found["transformer.h.0"][1] == pytest.approx(float(hidden.square().sum()))


def test_a_failed_pass_adds_nothing_and_leaves_no_hooks():
    def fails(m, x):
        x + m.other(x)
        raise RuntimeError("no")

    model = Calls(fails)
    capture = ResidualCapture(model)
    with pytest.raises(RuntimeError, match="no"), capture.capturing():
        model(draw(N, T, D))
    assert capture.branches == {}
    assert not model._forward_hooks
    assert not model.fc._forward_pre_hooks
