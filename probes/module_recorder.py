"""A mode that sees every function of torch during a pass, and knows in which module it is called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode


class ModuleRecorder(TorchFunctionMode):
    """Records one forward pass: a subclass says in `__torch_function__` what.

    Args:
        model: the module to be called inside `recording()`, already lent by the bystander.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._names = {module: name or "model" for name, module in model.named_modules()}
        self._stack: list[str] = []  # names of the modules that are running, the innermost last

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Follow the modules, with this mode on; hooks are taken off at the end."""
        handles = []
        for module, name in self._names.items():
            handles.append(module.register_forward_pre_hook(lambda _, args, name=name: self._stack.append(name)))
            handles.append(module.register_forward_hook(self._leave))
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._stack.pop()
