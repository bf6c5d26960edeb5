"""Non-linearities are seen after themselves, however they are written, under names a reader knows."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trainvitals.probes.activations import Capture
from trainvitals.probes.bystander import bystander


def captured(model, *chunks):
    capture = Capture(model, activations=True, features=True)
    with bystander(model), torch.no_grad():
        for x in chunks:
            with capture.capturing(len(x)):
                model(x)
    return capture


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(3, 4), nn.LayerNorm(4)
        self.second, self.out = nn.Linear(4, 4), nn.Linear(4, 2)
        self.shared = nn.ReLU(inplace=True)

    def forward(self, x):
        x = F.relu(self.norm(self.first(x)))
        x = self.shared(self.second(x))
        x = self.shared(self.second(x))
        return self.out(x.tanh())


def test_functions_methods_and_shared_modules_are_named_by_the_layer_before():
    model = Functional()
    found = captured(model, torch.randn(5, 3)).collected("activations")
    assert list(found) == ["norm.relu", "second.relu", "second.relu#2", "second.tanh"]


def test_a_module_called_once_has_its_own_name():
    model = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2), nn.Softmax(1))
    assert list(captured(model, torch.randn(5, 3)).collected("activations")) == ["1", "3"]


def test_values_are_those_after_the_non_linearity_even_if_written_over():
    class Overwrites(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 4)

        def forward(self, x):
            h = self.fc(x).relu_()
            return h.sub_(7.0)

    model, x = Overwrites(), torch.randn(6, 3)
    capture = captured(model, x)
    torch.testing.assert_close(capture.collected("activations")["fc.relu"], F.relu(model.fc(x)))
    torch.testing.assert_close(capture.collected("layer_outputs")["fc"], model.fc(x))


def test_the_activation_inside_a_stock_transformer_layer_is_seen():
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    found = captured(model, torch.randn(5, 3, 8)).collected("activations")
    assert list(found) == ["linear1.relu"]
    assert found["linear1.relu"].shape == (5, 3, 16)


def test_features_are_the_input_of_the_last_linear_layer_called():
    model, x = Functional(), torch.randn(5, 3)
    capture = captured(model, x)
    assert capture.classifier_name == "out"
    torch.testing.assert_close(model.out(capture.collected("features")["features"]), model(x))


def test_chunks_are_joined_in_order():
    model, x = Functional(), torch.randn(7, 3)
    whole, parts = captured(model, x), captured(model, x[:4], x[4:])
    for kind in ("activations", "layer_outputs", "features"):
        torch.testing.assert_close(parts.collected(kind), whole.collected(kind))


def test_layers_without_the_batch_in_front_are_left_out():
    class SequenceFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 4)

        def forward(self, x):
            return F.relu(self.fc(x.transpose(0, 1))).mean(0)

    assert captured(SequenceFirst(), torch.randn(5, 2, 3)).collected("activations") == {}


@pytest.mark.parametrize("module", [nn.Sigmoid(), nn.Softplus(), nn.Softmax(1), nn.Dropout()])
def test_what_has_no_sign_is_no_pattern(module):
    assert captured(nn.Sequential(nn.Linear(3, 4), module), torch.randn(5, 3)).collected("activations") == {}


class Permuted(nn.Module):
    """A convolution, then linear layers on its channels, as ConvNeXt has them; and a weight of its own kind."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.sequence = nn.Conv2d(2, 4, 3), nn.Conv1d(4, 6, 1)
        self.fc, self.scale = nn.Linear(4, 5), Scale()

    def forward(self, x):
        h = F.relu(self.conv(x))
        F.relu(self.sequence(h.flatten(2)))
        h = F.gelu(self.fc(h.permute(0, 2, 3, 1)))
        return torch.tanh(self.scale(h.permute(0, 3, 1, 2))), torch.tanh(self.scale(h.flatten(1, 2)))


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.gain * x


def test_units_are_counted_along_the_dimension_that_the_layer_before_says():
    capture = captured(Permuted(), torch.randn(3, 2, 5, 5))
    units = {name: t.shape[capture.unit_axes[name]] for name, t in capture.collected("activations").items()}
    assert units == {"conv.relu": 4, "sequence.relu": 6, "fc.gelu": 5, "scale.tanh": 5, "scale.tanh#2": 5}
