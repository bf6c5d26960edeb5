"""What the layers of a model put out during one forward pass, without a hook of the model's own.

Non-linearities are caught as functions (`torch.nn.functional.relu`, `torch.tanh`, `x.relu()`…) by a
torch-function mode, so that a module, a call in `forward` and the activation inside a stock transformer
layer are all seen after the non-linearity. Linear layers and convolutions are caught by hooks, which the
bystander throws away.

Names: an activation module called once has its own name (`net.1`); a function, or a module called more
than once, is named by the layer before it (`conv1.relu`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from trainvitals.diagnostics.feature_layers import matches
from trainvitals.diagnostics.signal_sums import SignalSums
from trainvitals.probes.blocks import block_names

# Non-linearities with both signs of input told apart by `> 0` after them. Sigmoid and softplus are
# positive everywhere: their pattern says nothing.
_NAMES = (
    "relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "prelu", "rrelu", "elu", "elu_", "selu", "selu_",
    "celu", "gelu", "silu", "mish", "hardswish", "hardtanh", "tanh", "tanh_", "softsign", "tanhshrink",
)  # fmt: skip
_NON_LINEARITIES: dict[Any, str] = {
    function: name.rstrip("_")
    for name in _NAMES
    for home in (torch, F, Tensor)
    if callable(function := getattr(home, name, None))
}
_LINEAR = (nn.Linear, nn.modules.conv._ConvNd)
_UNIT_AXES = (  # which dimension of a layer's output counts its units: channels, or what it has last
    ((nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm), 1),
    ((nn.Linear, nn.LayerNorm, nn.Embedding), -1),
)


class Capture:
    """Collects activations, layer outputs and the classifier's input, chunk by chunk.

    Args:
        model: the module to be called inside `capturing()`, already lent by the bystander.
        activations: keep outputs of non-linearities and of linear layers, (N, ...) each.
        features: keep the input of the last `nn.Linear` called.
        layers: names and glob patterns of modules and activations whose outputs to keep as features (N, ..., D).
        utilities: sum −g·h over each unit of each activation h, g the gradient of what is differentiated inside
            `capturing()`.
        signals: sum outputs of blocks and their squares, by channel.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        activations: bool,
        features: bool,
        layers: Sequence[str] = (),
        utilities: bool = False,
        signals: bool = False,
    ) -> None:
        self._model = model
        self._keeps_activations = activations
        self._keeps_features = features
        self._layers = tuple(layers)
        self._sums_utilities = utilities
        self._blocks = frozenset(block_names(model)) if signals else frozenset()
        self._chunks: dict[str, list[dict[str, Tensor]]] = {
            "activations": [], "layer_outputs": [], "features": [], "layers": []
        }  # fmt: skip
        self.signals: dict[str, SignalSums] = {}  # by name of a block
        self.utilities: dict[str, Tensor | None] = {}  # (d,) by name of an activation, None where no gradient flows
        self.layer_names: tuple[str, ...] = ()  # what `layers` can name, in the order of the forward pass
        self.classifier_name: str | None = None
        self.unit_axes: dict[str, int] = {}  # by name of an activation: the dimension that counts its units

    @contextmanager
    def capturing(self, num_samples: int) -> Iterator[None]:
        """Record what a forward pass over `num_samples` samples puts out."""
        recorder = _Recorder(self._model, num_samples, self._keeps_activations, self._keeps_features, self._layers)
        recorder.sums_utilities, recorder.blocks = self._sums_utilities, self._blocks
        with recorder.recording():
            yield
        for kind, found in (
            ("activations", recorder.activations),
            ("layer_outputs", recorder.layer_outputs),
            ("features", recorder.features),
            ("layers", recorder.layers),
        ):
            self._chunks[kind].append(found)
        self.layer_names = recorder.layer_names
        for name, sums in recorder.signals.items():
            self.signals[name] = self.signals[name] + sums if name in self.signals else sums
        for name, found in recorder.utilities.items():
            before = self.utilities.get(name)
            self.utilities[name] = found if before is None or found is None else before + found
        self.classifier_name = recorder.classifier_name
        self.unit_axes = recorder.unit_axes

    def collected(self, kind: str) -> dict[str, Tensor]:
        """Return (N, ...) tensors by layer name: "activations", "layer_outputs", "features" or "layers".

        A layer whose shape differs between chunks (sequences padded to other lengths) is left out.
        """
        chunks = self._chunks[kind]
        if len(chunks) == 1:
            return dict(chunks[0])
        return {
            name: torch.cat([chunk[name] for chunk in chunks])
            for name in (chunks[0] if chunks else {})
            if all(name in chunk for chunk in chunks) and len({chunk[name].shape[1:] for chunk in chunks}) == 1
        }


@dataclass(frozen=True)
class _Seen:
    """A non-linearity as it was called."""

    own_name: str | None  # of the activation module that called it
    name: str  # by the layer before
    output: Tensor | None  # (N, ...), where activations are kept
    features: Tensor | None  # (N, ..., D), where it was asked for
    axis: int  # the dimension that counts its units
    when: int  # how many modules had returned
    utility: _Utility | None  # where it was asked for and a gradient flows


class _Utility:
    """Sums −g·h over all but a tensor's units, as gradients g of it come: zero until they do."""

    def __init__(self, output: Tensor, axis: int) -> None:
        kept = output.detach().clone()
        others = [dim for dim in range(output.ndim) if dim != axis % output.ndim]
        self.total = torch.zeros(output.shape[axis], dtype=torch.float64, device=output.device)

        def add(gradient: Tensor) -> None:
            self.total -= (gradient.detach() * kept).sum(others, dtype=torch.float64)

        output.register_hook(add)


class _Recorder(TorchFunctionMode):
    """Records one forward pass."""

    def __init__(
        self, model: nn.Module, num_samples: int, activations: bool, features: bool, layers: Sequence[str]
    ) -> None:
        super().__init__()
        self._names = {module: name or "model" for name, module in model.named_modules()}
        self._num_samples = num_samples
        self._keeps_activations = activations
        self._keeps_features = features
        self._layers = layers
        self._stack: list[nn.Module] = []
        self._last_layer = "input"
        self._last_axis: int | None = None  # of that layer's units, None where its kind does not say
        self._last_units = 0  # how many there are
        self._calls: Counter[str] = Counter()
        self._found: list[_Seen] = []
        self.sums_utilities = False
        self.blocks: frozenset[str] = frozenset()
        self.signals: dict[str, SignalSums] = {}
        self._modules: list[tuple[str, Tensor | None]] = []  # modules as they returned, and what is kept as features
        self.layer_outputs: dict[str, Tensor] = {}
        self.features: dict[str, Tensor] = {}
        self.classifier_name: str | None = None

    @contextmanager
    def recording(self) -> Iterator[None]:
        handles = []
        for module in self._names:
            handles.append(module.register_forward_pre_hook(self._enter))
            handles.append(module.register_forward_hook(self._leave))
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()

    @property
    def activations(self) -> dict[str, Tensor]:
        return {name: seen.output for name, seen in self._named().items() if seen.output is not None}

    @property
    def unit_axes(self) -> dict[str, int]:
        return {name: seen.axis for name, seen in self._named().items()}

    @property
    def utilities(self) -> dict[str, Tensor | None]:
        named = self._named() if self.sums_utilities else {}
        return {name: None if seen.utility is None else seen.utility.total for name, seen in named.items()}

    @property
    def layers(self) -> dict[str, Tensor]:
        """Outputs of the layers asked for, units last."""
        return {name: output for name, output in self._in_order().items() if output is not None}

    @property
    def layer_names(self) -> tuple[str, ...]:
        return tuple(self._in_order())

    def _named(self) -> dict[str, _Seen]:
        own = Counter(seen.own_name for seen in self._found)
        chosen: dict[str, _Seen] = {}
        for seen in self._found:
            name = seen.own_name if seen.own_name and own[seen.own_name] == 1 else seen.name
            chosen[_unused(name, chosen)] = seen
        return chosen

    def _in_order(self) -> dict[str, Tensor | None]:
        """Return modules and activations by name, as they were computed; an activation module stands once."""
        activations = [(seen.when, name, seen) for name, seen in self._named().items()]
        found: dict[str, Tensor | None] = {}
        for when, (name, output) in enumerate(self._modules):
            for before, activation, seen in activations:
                if before == when and activation != name:
                    found[activation] = seen.features
            found[_unused(name, found)] = output
        return found

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        is_watched = self._keeps_activations or self._layers or self.sums_utilities
        if is_watched and func in _NON_LINEARITIES and self._fits(output):
            self._see(_NON_LINEARITIES[func], output)
        return output

    def _see(self, function: str, output: Tensor) -> None:
        inside = self._stack[-1] if self._stack else None
        is_module = inside is not None and type(inside).__module__ == "torch.nn.modules.activation"
        own_name = self._names[inside] if inside is not None and is_module else None
        name, axis = f"{self._last_layer}.{function}", self._unit_axis(output)
        # cloned: a following in-place operation (dropout_, add_) must not rewrite what was seen
        kept = output.detach().clone() if self._keeps_activations or self._wants(own_name or "", name) else None
        features = _units_last(kept, axis) if kept is not None and self._wants(own_name or "", name) else None
        utility = _Utility(output, axis) if self.sums_utilities and output.requires_grad else None
        if not self._keeps_activations:
            kept = None
        self._found.append(_Seen(own_name, name, kept, features, axis, len(self._modules), utility))

    def _wants(self, *names: str) -> bool:
        return any(matches(name, pattern) for name in names for pattern in self._layers)

    def _unit_axis(self, output: Tensor) -> int:
        """Return the dimension of units: where the layer before has them, or where as many stand now."""
        axis = self._last_axis
        if axis is None:
            return 1 if output.ndim > 3 else -1  # images have channels in front, sequences (N, T, D) behind
        if output.shape[axis] != self._last_units and output.shape[-1] == self._last_units:
            return -1  # a convolution's channels were moved, as vision transformers do with patches
        return axis

    def _fits(self, output: Any) -> bool:
        return isinstance(output, Tensor) and output.ndim > 1 and len(output) == self._num_samples

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._stack.append(module)
        if self._keeps_features and isinstance(module, nn.Linear) and args and self._fits(args[0]):
            self.classifier_name = self._names[module]
            self.features = {"features": args[0].detach()}

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._stack.pop()
        name = self._names[module]
        if next(module.parameters(recurse=False), None) is not None or module._parameters:
            self._last_layer = name
            self._last_axis = next((axis for kinds, axis in _UNIT_AXES if isinstance(module, kinds)), None)
            if self._last_axis is not None and isinstance(output, Tensor) and output.ndim > 1:
                self._last_units = output.shape[self._last_axis]
        if self._keeps_activations and isinstance(module, _LINEAR) and self._fits(output):
            # cloned for the same reason: `nn.ReLU(inplace=True)` writes over the convolution's output
            self.layer_outputs[_unused(name, self.layer_outputs)] = output.detach().clone()
        if name in self.blocks:
            self._sum_signal(name, main_tensor(output))
        if self._layers:
            self._modules.append((name, self._features_of(output) if self._wants(name) else None))

    def _sum_signal(self, name: str, output: Tensor) -> None:
        if self._fits(output) and output.is_floating_point():
            sums = SignalSums.of(_units_last(output, self._unit_axis(output)))
            self.signals[_unused(name, self.signals)] = sums

    def _features_of(self, output: Any) -> Tensor | None:
        """Return a copy of a module's output with its units last, or None if it has no row for each sample."""
        found = main_tensor(output)
        if not self._fits(found) or not found.is_floating_point():
            return None
        return _units_last(found.detach().clone(), self._unit_axis(found))


def main_tensor(outputs: Any) -> Tensor:
    """Return the tensor of a structure of outputs that stands for it: `logits`, else the first one."""
    if isinstance(outputs, Tensor):
        return outputs
    if isinstance(getattr(outputs, "logits", None), Tensor):
        return outputs.logits
    return next((part for part in tree_leaves(outputs) if isinstance(part, Tensor)), torch.empty(0))


def _units_last(output: Tensor, axis: int) -> Tensor:
    """Return (N, ..., D) of an output whose units are in another dimension."""
    return output.movedim(axis, -1)


def _unused(name: str, taken: Mapping[str, Any]) -> str:
    """Return the name, or with `#2`, `#3`… behind it if the layer is called again."""
    if name not in taken:
        return name
    number = 2
    while f"{name}#{number}" in taken:
        number += 1
    return f"{name}#{number}"
