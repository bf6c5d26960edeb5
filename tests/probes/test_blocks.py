"""Blocks are what is numbered, the outermost of it."""

from cases import CASES
from hugging_face import PRETRAINED
from torch import nn

from trainvitals.probes.blocks import block_names


def test_the_outermost_numbered_modules_are_blocks():
    inner = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    model = nn.ModuleDict({"stem": nn.Linear(2, 2), "stages": nn.ModuleList([inner, nn.Sequential(inner)])})
    assert block_names(model) == ("stages.0", "stages.1")
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 3)
    assert block_names(encoder) == ("layers.0", "layers.1", "layers.2")


def test_without_numbers_all_layers_with_weights_are():
    model = next(case for case in CASES if case.name == "cnn_batchnorm").make_model()
    assert block_names(model) == ("conv1", "bn1", "conv2", "bn2", "fc")
    assert block_names(nn.Linear(2, 2)) == ("model",)


def test_hugging_face_models_number_their_blocks():
    found = {pretrained.name.split()[0]: block_names(pretrained.model()) for pretrained in PRETRAINED[::2]}
    assert found == {
        "bert": ("bert.encoder.layer.0",), "gpt2": ("transformer.h.0",), "llama": ("model.layers.0",),
        "vit": found["vit"],
    }  # fmt: skip
    assert len(found["vit"]) == 1
    assert found["vit"][0].endswith(".0")
