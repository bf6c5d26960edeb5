"""The innermost running module is known at every function, and nothing is left on the model."""

import pytest
import torch
from torch import nn

from trainvitals.probes.module_recorder import ModuleRecorder


class Where(ModuleRecorder):
    def __init__(self, model):
        super().__init__(model)
        self.calls = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.calls.append((getattr(func, "__name__", ""), self._stack[-1] if self._stack else ""))
        return func(*args, **(kwargs or {}))


def num_hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_functions_are_seen_in_the_innermost_module():
    model = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 2)))
    recorder = Where(model)
    with recorder.recording():
        model(torch.zeros(1, 3))
        assert num_hooks(model) == 10
    assert ("linear", "0") in recorder.calls
    assert ("relu", "1.0") in recorder.calls
    assert ("linear", "1.1") in recorder.calls
    assert num_hooks(model) == 0


def test_a_failed_pass_leaves_nothing_either():
    model = nn.Linear(3, 4)
    with pytest.raises(RuntimeError), Where(model).recording():
        model(torch.zeros(1, 5))
    assert num_hooks(model) == 0
