"""The part of a snapshot that layers give: activations, features, attention and signals, kept as a pass runs."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property, reduce
from operator import or_

from torch import Tensor, nn

from trainvitals.diagnostics.attention_sums import AttentionSums
from trainvitals.diagnostics.base import Classifier, Diagnostic, Missing, Needs
from trainvitals.diagnostics.signal_sums import BranchSums, SignalSums
from trainvitals.probes.activations import Capture
from trainvitals.probes.attention import AttentionCapture
from trainvitals.probes.residual_stream import ResidualCapture
from trainvitals.probes.subject import float32_if_half


class TrainCapture:
    """All that is kept of the train probe's passes, as the needs of what is due ask for.

    Args:
        model: the module to be called inside `capturing()`, already lent by the bystander.
        due: what is measured at this step.
    """

    def __init__(self, model: nn.Module, due: Iterable[Diagnostic]) -> None:
        due = list(due)
        self._needs = reduce(or_, (diagnostic.needs for diagnostic in due), Needs.NOTHING)
        self.attention, self.residuals = AttentionCapture(model), ResidualCapture(model)
        self.layers = Capture(
            model,
            activations=bool(self._needs & Needs.ACTIVATIONS),
            features=bool(self._needs & Needs.FEATURES),
            layers=_layers_of(due, Needs.FEATURES),
            signals=bool(self._needs & Needs.SIGNALS),
        )

    @contextmanager
    def capturing(self, num_samples: int) -> Iterator[None]:
        """Keep what a forward pass over `num_samples` samples computes."""
        with ExitStack() as watching:
            if self._needs & Needs.ATTENTION:
                watching.enter_context(self.attention.capturing())
            if self._needs & Needs.SIGNALS:
                watching.enter_context(self.residuals.capturing())
            watching.enter_context(self.layers.capturing(num_samples))
            yield


def heldout_capture(model: nn.Module, due: Iterable[Diagnostic]) -> Capture:
    """Return what keeps features of the held-out probe's passes, where something that is due reads them."""
    due = [diagnostic for diagnostic in due if diagnostic.needs & Needs.HELDOUT_FEATURES]
    return Capture(model, activations=False, features=bool(due), layers=_layers_of(due, Needs.HELDOUT_FEATURES))


def _layers_of(due: Iterable[Diagnostic], need: Needs) -> list[str]:
    """Return the names and patterns of layers that diagnostics with this need ask for."""
    return [name for diagnostic in due if diagnostic.needs & need for name in diagnostic.captured_layers()]


class CapturedLayers(abc.ABC):
    """What layers gave, read from the captures of the passes that the class below runs."""

    @abc.abstractmethod
    def _captured_train(self) -> TrainCapture:
        """Run the train pass if it has not been run, and return what was kept of it."""

    @abc.abstractmethod
    def _captured_heldout(self) -> Capture:
        """Run the held-out pass if it has not been run, and return what was kept of it."""

    @abc.abstractmethod
    def _module(self, name: str) -> nn.Module:
        """Return the model's module of that name."""

    @property
    def activations(self) -> Mapping[str, Tensor]:
        """Outputs of non-linearities, (N, ...) by name."""
        return self._captured_train().layers.collected("activations")

    @property
    def unit_axes(self) -> Mapping[str, int]:
        """The dimension that counts the units of each activation."""
        return self._captured_train().layers.unit_axes

    @property
    def attention(self) -> Mapping[str, AttentionSums]:
        """Sums over the rows of each attention layer."""
        return self._captured_train().attention.layers

    @property
    def signals(self) -> Mapping[str, SignalSums]:
        """Sums of each block's output."""
        return self._captured_train().layers.signals

    @property
    def branches(self) -> Mapping[str, BranchSums]:
        """Sums of each residual addition."""
        return self._captured_train().residuals.branches

    @property
    def layer_outputs(self) -> Mapping[str, Tensor]:
        """Outputs of linear layers and convolutions, (N, ...) by name."""
        return self._captured_train().layers.collected("layer_outputs")

    @property
    def layer_names(self) -> tuple[str, ...]:
        """What a `layers` option can name, in the order of the forward pass."""
        return self._captured_train().layers.layer_names

    @property
    def layer_features(self) -> Mapping[str, Tensor]:
        """Outputs of the layers that `layers` options name, (N, ..., D)."""
        return self._captured_train().layers.collected("layers")

    @property
    def heldout_layer_features(self) -> Mapping[str, Tensor]:
        """The same on the held-out probe."""
        return self._captured_heldout().collected("layers")

    @cached_property
    def features(self) -> Tensor:
        """Inputs of the last linear layer called, (N, ..., D)."""
        return _features_of(self._captured_train().layers)

    @cached_property
    def heldout_features(self) -> Tensor:
        """The same on the held-out probe."""
        return _features_of(self._captured_heldout())

    @cached_property
    def classifier(self) -> Classifier:
        """The last linear layer called."""
        name = self._captured_train().layers.classifier_name
        if name is None:
            raise Missing("no linear layer was called on the probe batch, so there is no classifier")
        module = self._module(name)
        weight, bias = module.weight, module.bias
        assert isinstance(weight, Tensor)  # Capture only names modules that are nn.Linear
        return Classifier(name, float32_if_half(weight), float32_if_half(bias) if isinstance(bias, Tensor) else None)


def _features_of(capture: Capture) -> Tensor:
    found = capture.collected("features").get("features")
    if found is None:
        raise Missing("no linear layer was called on the probe batch, so there are no last-layer features")
    return found
