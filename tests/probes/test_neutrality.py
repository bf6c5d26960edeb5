"""The first promise: a watched run is bit for bit the unwatched one, at every step.

Every kind of training in `tests/trainings/` is run twice from the same seeds, once plain and once with "full" probes at
every step and no budget. Losses, gradients and the optimiser's steps are compared as they come; weights, buffers, what
modules hold, hooks, optimiser and scheduler states, random states and torch's switches at the end: to the last bit.
"""

from __future__ import annotations

import random
from contextlib import closing, nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from trainings import KINDS, Training

import trainvitals as tv
from trainvitals.diagnostics.registry import registered

NUM_STEPS = 2
FAST = ("momentum_and_augmented_images", "user_hooks", "grad_scaler_that_overflows_at_first")  # a second or two each
DEVICES = ["cpu", pytest.param("cuda", marks=[
    pytest.mark.slow, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")])]  # fmt: skip
SWITCHES = {
    "gradients": torch.is_grad_enabled, "inference": torch.is_inference_mode_enabled,
    "autocast": lambda: torch.is_autocast_enabled("cpu"), "autocast cache": torch.is_autocast_cache_enabled,
    "anomalies": torch.is_anomaly_enabled, "determinism": torch.are_deterministic_algorithms_enabled,
    "dtype": torch.get_default_dtype, "device": torch.get_default_device, "threads": torch.get_num_threads,
    "fast path": torch.backends.mha.get_fastpath_enabled, "cuDNN": lambda: torch.backends.cudnn.enabled,
    "flash": torch.backends.cuda.flash_sdp_enabled, "math": torch.backends.cuda.math_sdp_enabled,
}  # fmt: skip


def train(kind: str, device: str, **watching) -> dict:
    """Run a kind of training, watched if `watching` holds options of the watch, and return all that it left."""
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    seen: dict = {"gradients": [], "steps": 0}
    with closing(KINDS[kind](device)) as loop:
        t = next(loop)
        options = {"loss": t.loss, "train": t.data, "heldout": t.data, "probe_samples": 6} | dict(t.options)
        with tv.watch(t.model, t.optimizer, **(options | watching)) if watching else nullcontext():
            counting = t.optimizer.register_step_post_hook(lambda *_: seen.update(steps=seen["steps"] + 1))
            for _ in range(NUM_STEPS):
                next(loop)
                seen["gradients"].append([None if p.grad is None else p.grad.clone() for p in t.model.parameters()])
            counting.remove()
        assert t.is_genuine()
        return seen | left(t) | {"may warn": t.may_warn}


def left(t: Training) -> dict:
    """Return what a training leaves behind."""
    return {
        "losses": t.losses,
        "model": of_modules(t.model),
        "optimizer": of(t.optimizer),
        "beside": {name: of(value) for name, value in t.beside.items()},
        "random": (random.getstate(), str(np.random.get_state()), torch.get_rng_state(), of_cuda()),
        "switches": {name: str(read()) for name, read in SWITCHES.items()},
    }


def of_cuda() -> list[Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


def of_modules(model: nn.Module) -> list:
    return [(name, module.training, sorted(vars(module)), hooks(module), [of(p) for p in tensors(module)])
            for name, module in model.named_modules()]  # fmt: skip


def tensors(module: nn.Module) -> list[Tensor | None]:
    return [*module._parameters.values(), *module._buffers.values()]


def hooks(holder: object) -> dict[str, int]:
    found = {name: value for name, value in vars(holder).items() if name.endswith("_hooks")}
    return {name: len(value or ()) for name, value in found.items()}


def of(value: object) -> object:
    """Return what there is to compare of something that a training has beside its model."""
    if isinstance(value, Tensor):
        version = None if value.is_inference() else value._version
        hooks_of_tensor = len(value._backward_hooks or ()), len(getattr(value, "_post_accumulate_grad_hooks", 0) or ())
        return value.detach().clone(), version, value.requires_grad, hooks_of_tensor
    if isinstance(value, nn.Module):
        return of_modules(value)
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, torch.optim.Optimizer):
        return value.state_dict(), value.defaults, hooks(value)
    if isinstance(value, (list, tuple)):
        return [of(part) for part in value]
    return value.state_dict() if hasattr(value, "state_dict") else getattr(value, "__dict__", value)


def assert_same(a: object, b: object, where: str) -> None:
    """Raise where two trainings differ, by so much as the sign of a zero."""
    assert type(a) is type(b), where
    if isinstance(a, Tensor):
        assert (a.dtype, a.shape, a.layout) == (b.dtype, b.shape, b.layout), where
        assert bits(a) == bits(b), where
    elif isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            assert_same(a[key], b[key], f"{where}[{key!r}]")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    else:
        assert a == b or (a != a and b != b), where


def bits(tensor: Tensor) -> bytes:
    dense = tensor.detach().to_dense() if tensor.is_sparse else tensor.detach()
    return dense.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.fixture(autouse=True)
def _one_algorithm_a_kernel(request):
    """On a GPU two plain runs must be equal first of all."""
    if "cuda" in request.node.name:
        before = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
        yield
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = before
    else:
        yield


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # torch.compile's own imports
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # and what it looks at
@pytest.mark.filterwarnings("ignore:trainvitals:RuntimeWarning")  # read from the run
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", [k if k in FAST else pytest.param(k, marks=pytest.mark.slow) for k in KINDS])
def test_a_watched_run_is_the_unwatched_one_bit_for_bit(kind, device, tmp_path):
    if device == "cpu" and kind.endswith("on_a_gpu"):
        pytest.skip("torch has it for GPUs alone")
    plain = train(kind, device)
    watched = train(kind, device, store=tmp_path, probes="full", every=1, budget=None)
    assert_same(watched, plain, kind)
    with tv.open_run("latest", store=tmp_path) as run:
        assert run.last_step == plain["steps"]  # the probes did run: the test compares something
        assert len(run.series("hessian.top")["step"].unique()) == plain["steps"] + 1
        warned = run.events().query("kind == 'warning'")["message"]
        assert [words for words in warned if plain["may warn"] not in words] == []


@pytest.mark.slow
def test_what_no_preset_holds_is_as_neutral(tmp_path):
    on_request = {name: {} for name in registered()} | {
        "landscape": {"num_points": 3}, "adv": {"epsilon": 0.1, "num_steps": 2}, "ntk": {"num_samples": 2},
        "lipschitz": {"num_samples": 4}, "jacobian.spectrum": {"num_samples": 2},
        "feature.response": {"features": [0, 1]}, "per_group": {"groups": [0, 1] * 3, "heldout_groups": [0, 1] * 3},
        "grad.per_group": {"groups": [0, 1] * 3},
    }  # fmt: skip
    kind = "momentum_and_augmented_images"
    watched = train(kind, "cpu", store=tmp_path, probes=on_request, every=1, budget=None)
    assert_same(watched, train(kind, "cpu"), kind)
    with tv.open_run("latest", store=tmp_path) as run:
        assert {"landscape", "adv.gap"} & set(run.names())
        assert run.events().query("kind == 'warning'").empty


def test_the_comparison_can_fail():
    plain, other = (train("nesterov_with_weight_decay", "cpu") for _ in range(2))
    assert_same(other, plain, "run")
    other["model"][1][-1][0][0].view(-1)[0] += 1e-7
    with pytest.raises(AssertionError, match="model"):
        assert_same(other, plain, "run")


@pytest.mark.parametrize(("a", "b"), [(0.0, -0.0), (1.0, 1.0 + 2**-23), (float("nan"), 0.0)])
def test_the_comparison_tells_single_bits(a, b):
    with pytest.raises(AssertionError):
        assert_same(torch.tensor(a), torch.tensor(b), "run")
    assert_same(torch.tensor(a), torch.tensor(a), "run")
