"""Of a pass is kept what is asked for, and nothing else."""

import pytest
import torch
import torch.nn.functional as F
from cases import CASES
from torch import nn

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.registry import select
from trainvitals.probes.bystander import bystander
from trainvitals.probes.captured_layers import CapturedLayers, TrainCapture, heldout_capture
from trainvitals.probes.snapshot import ModelSnapshot
from trainvitals.probes.subject import make_subject

TRANSFORMER = next(case for case in CASES if case.name == "transformer")
KEPT = {  # what is due -> what is kept of the train pass
    "loss.train": set(),
    "oui": {"activations"},
    "rank.effective": {"features"},
    "nc1": {"features"},
    "attention.entropy": {"attention"},
    "residual.share": {"signals", "residuals"},
}


def captured(*names, **options):
    built = TRANSFORMER.build()
    capture = TrainCapture(built.model, select(list(names), options))
    with bystander(built.model), torch.no_grad(), capture.capturing(len(built.batch[0])):
        built.model(built.batch[0])
    kept = {kind for kind in ("activations", "features", "layers") if capture.layers.collected(kind)}
    kept |= {"attention"} if capture.attention.layers else set()
    kept |= {"signals"} if capture.layers.signals else set()
    return kept | ({"residuals"} if capture.residuals.branches else set()), capture


@pytest.mark.parametrize("name", KEPT)
def test_only_what_is_due_is_kept(name):
    assert captured(name)[0] == KEPT[name]


def test_needs_and_layers_of_all_that_is_due_are_merged():
    kept, capture = captured("oui", "rank.effective", "nc1", **{"rank.effective": {"layers": "embed"}, "nc1": {
        "layers": ["encoder*"]}})  # fmt: skip
    assert kept == {"activations", "features", "layers"}
    found = capture.layers.collected("layers")
    assert {"embed", "encoder", "encoder.linear1.relu"} <= found.keys()
    assert "head" not in found


def test_the_held_out_pass_keeps_features_for_those_that_read_them():
    built = TRANSFORMER.build()
    for names, expected in ((["rank.effective", "gap"], False), (["probe.knn"], True)):
        capture = heldout_capture(built.model, select(names))
        with bystander(built.model), torch.no_grad(), capture.capturing(len(built.batch[0])):
            built.model(built.batch[0])
        assert bool(capture.collected("features")) == expected
        assert capture.collected("activations") == {}


def snapshot_of(model):
    batch = (torch.randn(6, 1, 3), torch.arange(6) % 2)
    subject = make_subject(model, loss=F.cross_entropy, forward=None, train=batch, call="test")
    return batch[0], ModelSnapshot(subject, {d.name: d for d in select(["nc1"])})


def test_a_model_that_is_one_linear_layer_is_its_own_classifier():
    class Flat(nn.Linear):
        def forward(self, x):
            return super().forward(x.flatten(1))

    model = Flat(3, 2)
    x, snapshot = snapshot_of(model)
    with bystander(model):
        assert isinstance(snapshot, CapturedLayers)
        assert snapshot.classifier.name == "model"
        assert snapshot.classifier.weight.shape == (2, 3)
        torch.testing.assert_close(snapshot.features, x)


def test_models_without_a_linear_layer_say_so():
    model = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten())
    _, snapshot = snapshot_of(model)
    with bystander(model):
        for attribute in ("classifier", "features"):
            with pytest.raises(Missing, match="no linear layer was called"):
                getattr(snapshot, attribute)
