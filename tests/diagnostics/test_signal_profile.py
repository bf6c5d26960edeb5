"""The signal by block and the residual branches, against outputs taken by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import CASES
from fake_snapshot import FakeSnapshot
from hugging_face import PRETRAINED, call
from torch import nn

import trainvitals as tv
from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.signal_profile import ResidualShare, SignalProfile
from trainvitals.diagnostics.signal_sums import BranchSums, SignalSums

BY_NAME = {case.name: case for case in CASES}
WHAT = ["signal.profile", "residual.share"]


def measured(built, **changes):
    return tv.measure(built.model, **({"loss": built.loss, "batch": built.batch, "what": WHAT} | changes))


def by_channel(h):
    rows = h.movedim(1, -1).flatten(0, -2).detach().numpy()
    return {
        "mean_square": (rows.mean(0) ** 2).mean(), "variance": rows.var(0).mean(), "rms": (rows**2).mean() ** 0.5
    }  # fmt: skip


@pytest.mark.parametrize("extra", [[], ["hessian.top"], ["grad.norm", "units.dead"]])
def test_numbered_modules_are_blocks(extra):
    built = BY_NAME["mlp"].build()
    readings = measured(built, what=[*WHAT, *extra])
    h = built.batch[0]
    expected = [by_channel(h := layer(h)) for layer in built.model.eval()]
    for part in ("mean_square", "variance", "rms"):
        assert readings[f"signal.profile.{part}"].keys == ("0", "1", "2", "3", "4")
        assert readings[f"signal.profile.{part}"].value.tolist() == pytest.approx([e[part] for e in expected])
    assert readings["residual.share"].missing == "no residual addition was seen in the forward pass"
    assert readings["residual.share"].provenance["forward_passes"] == 0  # the profile's pass served


def test_layers_with_weights_are_blocks_where_nothing_is_numbered_and_channels_are_their_units():
    built = BY_NAME["cnn_batchnorm"].build()
    model, x = built.model.eval(), built.batch[0]
    first = model.conv1(x)
    readings = measured(built)
    assert readings["signal.profile.rms"].keys == ("conv1", "bn1", "conv2", "bn2", "fc")
    for part, expected in by_channel(first).items():
        assert readings[f"signal.profile.{part}"].value[0] == pytest.approx(expected)


def test_uneven_batches_give_what_one_batch_gives():
    for name in ("uneven", "transformer"):
        built = BY_NAME[name].build()
        x, y = built.batch
        parts = measured(built, batch=[(x[:5], y[:5]), (x[5:6], y[5:6]), (x[6:], y[6:])])
        for metric, reading in measured(built).items():
            if reading.missing is None:
                assert parts[metric].value.tolist() == pytest.approx(reading.value.tolist(), rel=1e-9)
            else:
                assert parts[metric].missing == reading.missing


def test_branches_of_a_transformer_beside_its_stream():
    built = BY_NAME["transformer"].build()
    model, x = built.model.eval(), built.batch[0]
    with torch.no_grad():
        stream, layer = model.embed(x), model.encoder
        first = layer.self_attn(stream, stream, stream, need_weights=False)[0]
        middle = layer.norm1(stream + first)
        second = layer.linear2(F.relu(layer.linear1(middle)))
    expected = [float(first.norm() / stream.norm()), float(second.norm() / middle.norm())]
    reading = measured(built)["residual.share"]
    assert reading.keys == ("encoder", "encoder#2")
    assert reading.value.tolist() == pytest.approx(expected)


class Residual(nn.Module):
    def __init__(self, depth, scale) -> None:
        super().__init__()
        self.first, self.scale = nn.Linear(4, 16), scale
        self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16)) for _ in range(depth))
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        x = self.scale * self.first(x)
        for block in self.blocks:
            x = x + self.scale * block(x)
        return self.head(x)


def residual(scale=1.0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Residual(3, scale).double()


def test_branches_and_stream_scaled_together_change_no_share():
    batch = (torch.randn(20, 4, generator=torch.Generator().manual_seed(1)).double(), torch.arange(20) % 3)
    one, other = (
        tv.measure(residual(scale), loss=F.cross_entropy, batch=batch, what=["residual.share"])["residual.share"]
        for scale in (1.0, 50.0)
    )
    assert one.keys == ("model", "model#2", "model#3")
    # LayerNorm's ε is all that tells the two apart
    assert other.value.tolist() == pytest.approx(one.value.tolist(), rel=1e-3)


@pytest.mark.parametrize("pretrained", PRETRAINED, ids=lambda p: p.name)
def test_hugging_face_models_have_a_block_and_two_branches(pretrained):
    readings = tv.measure(pretrained.model(), forward=call, batch=pretrained.split(), what=WHAT)
    assert len(readings["signal.profile.rms"].keys) == 1
    assert len(readings["residual.share"].keys) == 2
    assert np.isfinite(readings["residual.share"].value).all()


def test_missing_with_the_reason():
    for reading in SignalProfile().measure(FakeSnapshot(signals={})).values():
        assert reading.missing == "no block was seen"
    bad = {"a": SignalSums.of(torch.full((3, 2), math.nan)), "b": SignalSums.of(torch.ones(3, 2))}
    found = SignalProfile().measure(FakeSnapshot(signals=bad))
    assert found["rms"].keys == ("b",)
    assert found["rms"].details["left_out"] == {"a": "its output holds NaN or Inf"}

    def branch(*numbers):
        return BranchSums(*(torch.tensor(number).double() for number in numbers))

    for sums, reason in ((branch(1.0, 0.0), "a: the stream is zero"), (branch(math.inf, 1.0), "a: .* NaN or Inf")):
        with pytest.raises(Missing, match=reason):
            ResidualShare().measure(FakeSnapshot(branches={"a": sums}))
    assert ResidualShare().measure(FakeSnapshot(branches={"a": branch(0.0, 1.0)})).value.tolist() == [0.0]
