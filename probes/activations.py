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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

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
    """

    def __init__(self, model: nn.Module, *, activations: bool, features: bool) -> None:
        self._model = model
        self._keeps_activations = activations
        self._keeps_features = features
        self._chunks: dict[str, list[dict[str, Tensor]]] = {"activations": [], "layer_outputs": [], "features": []}
        self.classifier_name: str | None = None
        self.unit_axes: dict[str, int] = {}  # by name of an activation: the dimension that counts its units

    @contextmanager
    def capturing(self, num_samples: int) -> Iterator[None]:
        """Record what a forward pass over `num_samples` samples puts out."""
        recorder = _Recorder(self._model, num_samples, self._keeps_activations, self._keeps_features)
        with recorder.recording():
            yield
        for kind, found in (
            ("activations", recorder.activations),
            ("layer_outputs", recorder.layer_outputs),
            ("features", recorder.features),
        ):
            self._chunks[kind].append(found)
        self.classifier_name = recorder.classifier_name
        self.unit_axes = recorder.unit_axes

    def collected(self, kind: str) -> dict[str, Tensor]:
        """Return (N, ...) tensors by layer name: "activations", "layer_outputs" or "features".

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


class _Recorder(TorchFunctionMode):
    """Records one forward pass."""

    def __init__(self, model: nn.Module, num_samples: int, activations: bool, features: bool) -> None:
        super().__init__()
        self._names = {module: name or "model" for name, module in model.named_modules()}
        self._num_samples = num_samples
        self._keeps_activations = activations
        self._keeps_features = features
        self._stack: list[nn.Module] = []
        self._last_layer = "input"
        self._last_axis: int | None = None  # of that layer's units, None where its kind does not say
        self._calls: Counter[str] = Counter()
        self._found: list[tuple[str | None, str, Tensor, int]] = []  # a module's own name, that by the layer before
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
        return {name: output for name, (output, _) in self._named().items()}

    @property
    def unit_axes(self) -> dict[str, int]:
        return {name: axis for name, (_, axis) in self._named().items()}

    def _named(self) -> dict[str, tuple[Tensor, int]]:
        own = Counter(name for name, _, _, _ in self._found)
        chosen: dict[str, tuple[Tensor, int]] = {}
        for module_name, before, output, axis in self._found:
            name = module_name if module_name and own[module_name] == 1 else before
            chosen[_unused(name, chosen)] = output, axis
        return chosen

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if self._keeps_activations and func in _NON_LINEARITIES and self._fits(output):
            inside = self._stack[-1] if self._stack else None
            is_module = inside is not None and type(inside).__module__ == "torch.nn.modules.activation"
            own_name = self._names[inside] if inside is not None and is_module else None
            # cloned: a following in-place operation (dropout_, add_) must not rewrite what was seen
            name = f"{self._last_layer}.{_NON_LINEARITIES[func]}"
            self._found.append((own_name, name, output.detach().clone(), self._unit_axis(output)))
        return output

    def _unit_axis(self, output: Tensor) -> int:
        if self._last_axis is not None:
            return self._last_axis
        return 1 if output.ndim > 3 else -1  # images have channels in front, sequences (N, T, D) behind

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
        if self._keeps_activations and isinstance(module, _LINEAR) and self._fits(output):
            # cloned for the same reason: `nn.ReLU(inplace=True)` writes over the convolution's output
            self.layer_outputs[_unused(name, self.layer_outputs)] = output.detach().clone()


def _unused(name: str, taken: Mapping[str, Any]) -> str:
    """Return the name, or with `#2`, `#3`… behind it if the layer is called again."""
    if name not in taken:
        return name
    number = 2
    while f"{name}#{number}" in taken:
        number += 1
    return f"{name}#{number}"
