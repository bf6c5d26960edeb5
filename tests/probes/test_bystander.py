"""The bystander leaves no trace: every attribute, flag, hook, buffer and random state as it was."""

import functools
import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import trainvitals as tv
from trainvitals.probes.bystander import _surely, bystander, seed_random_state, unwrapped


class Messy(nn.Module):
    """A model whose forward pass writes to itself in every way that Python allows."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
        self.register_buffer("average", torch.zeros(2))
        self.register_buffer("scratch", torch.zeros(1), persistent=False)
        self.num_calls = 0
        self.history: list[float] = [1.0]
        self.cache: dict[str, torch.Tensor] = {"last": torch.zeros(2)}
        self.noise = torch.Generator().manual_seed(3)
        self.numpy_noise = np.random.default_rng(3)
        self.plain = torch.zeros(2)

    def forward(self, x):
        self.num_calls += 1
        self.history.append(float(x.detach().sum()))
        self.new_attribute = "written"
        x = x + 0.01 * torch.randn(x.shape, generator=self.noise).to(x) + 0.01 * self.numpy_noise.normal()
        y = self.net(x) + 0.01 * random.random() + 0.01 * np.random.rand()
        self.average.mul_(0.9).add_(0.1 * y.detach().mean(0))
        self.cache["last"].add_(1.0)
        self.cache["more"] = y.detach()
        self.plain += 1
        self.scratch = self.scratch + 1
        return y


def _states() -> tuple:
    return (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist())


def _picture(model: nn.Module) -> list:
    """Everything a module holds, tensors by identity, version and value."""
    rows = []
    for name, module in model.named_modules():
        for key, value in module.__dict__.items():
            if isinstance(value, torch.Tensor):
                rows.append((name, key, id(value), value._version, value.tolist()))
            elif isinstance(value, dict):
                rows.append((name, key, id(value), [(k, id(v)) for k, v in value.items()]))
                rows += [
                    (name, key, k, id(v), v._version, v.tolist())
                    for k, v in value.items()
                    if isinstance(v, torch.Tensor) and k != "last"
                ]
            elif isinstance(value, torch.Generator):
                rows.append((name, key, value.get_state().tolist()))
            elif isinstance(value, np.random.Generator):
                rows.append((name, key, str(value.bit_generator.state)))
            else:
                rows.append((name, key, id(value), str(value)))
    return rows


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_nothing_of_a_messy_model_changes(mode):
    model = Messy().train()
    model.net[1].eval()  # a frozen BatchNorm in a training model
    x = torch.randn(5, 4)
    before, states, last = _picture(model), _states(), model.cache["last"].clone()
    with bystander(model, mode=mode) as lent:
        lent(x).sum().backward(inputs=[x.requires_grad_()])
        torch.rand(3), np.random.rand(3), random.random()
        assert lent.training == (mode == "train")
    assert _picture(model) == before
    assert _states() == states
    assert torch.equal(model.cache["last"], last)
    assert all(p.grad is None for p in model.parameters())
    assert not hasattr(model, "new_attribute")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_inside_leaves_no_trace_either(error):
    model = Messy()
    before, states = _picture(model), _states()
    with pytest.raises(error), bystander(model) as lent:
        lent(torch.randn(5, 4))
        raise error
    assert _picture(model) == before
    assert _states() == states


def test_user_hooks_are_not_called_and_are_there_afterwards():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    calls = []
    model[0].register_forward_hook(lambda *a: calls.append("forward"))
    model[0].register_forward_pre_hook(lambda *a: calls.append("pre"))
    model[0].register_full_backward_hook(lambda *a: calls.append("backward"))
    model[0].weight.register_hook(lambda g: calls.append("tensor"))
    handle = nn.modules.module.register_module_forward_hook(lambda *a: calls.append("global"))
    try:
        with bystander(model):
            parameters = {k: p.detach().requires_grad_() for k, p in model.named_parameters()}
            torch.func.functional_call(model, parameters, torch.ones(1, 2)).sum().backward()
        assert calls == []
        model(torch.ones(1, 2, requires_grad=True)).sum().backward()
        assert sorted(calls) == ["backward", "forward", "global", "global", "global", "pre", "tensor"]
    finally:
        handle.remove()


def test_hooks_that_compute_weights_still_run():
    with pytest.warns(FutureWarning):
        model = nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(3, 3)))
    with torch.no_grad():
        model[0].weight_g.mul_(2)  # the derived weight is stale until the hook runs
    with bystander(model) as lent:
        inside = lent(torch.ones(1, 3))
    torch.testing.assert_close(inside, model(torch.ones(1, 3)))


def test_a_users_own_train_method_is_not_called():
    class Merging(nn.Linear):  # as LoRA layers do
        def train(self, mode=True):
            self.weight.data.add_(1.0)
            return super().train(mode)

    model = Merging(2, 2)
    before = model.weight.clone()
    for mode in ("eval", "train"):
        with bystander(model, mode=mode) as lent:
            lent(torch.ones(1, 2))
    assert torch.equal(model.weight, before)


def test_autocast_grad_mode_and_attention_flags_are_put_back():
    model = nn.Linear(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        with bystander(model) as lent:
            assert not torch.is_autocast_enabled("cpu")
            assert torch.is_grad_enabled()
            assert lent(torch.ones(1, 2)).dtype == torch.float32
            assert not torch.backends.mha.get_fastpath_enabled()
            assert not torch.backends.cuda.flash_sdp_enabled()
        assert torch.is_autocast_enabled("cpu")
        assert not torch.is_grad_enabled()
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()


def test_an_unknown_mode_is_refused_and_leaves_no_trace():
    model = nn.Linear(2, 2)
    before = _picture(model)
    with pytest.raises(ValueError, match="expected mode 'eval' or 'train'"), bystander(model, mode="test"):
        pass
    assert _picture(model) == before


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # torch.compile's own imports
def test_wrappers_are_looked_through():
    model = nn.Linear(2, 2)
    assert unwrapped(nn.DataParallel(model)) is model
    assert unwrapped(torch.compile(model)) is model


class Helper:
    def __init__(self) -> None:
        self.count, self.seen, self.rng = 0, [], np.random.default_rng(1)
        self.total = torch.zeros(2)


class Hoarder(nn.Module):
    """Holds a teacher that is no submodule, caches in nested containers, and a helper object with state."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.teacher = [nn.BatchNorm1d(4)]
        self.cache = [([],), {"k": torch.zeros(2)}]
        self.helper = Helper()

    def forward(self, x):
        self.cache[0][0].append(1)
        self.cache[1]["k"].add_(1)
        self.helper.count += 1
        self.helper.seen.append(self.helper.rng.normal())
        self.helper.total += 1
        return self.teacher[0](self.layer(x))


def _hoard(model: Hoarder) -> list:
    helper = model.helper
    return [
        model.cache[0], model.cache[1]["k"].tolist(), helper.count, list(helper.seen), helper.total.tolist(),
        str(helper.rng.bit_generator.state), _picture(model.teacher[0]),
    ]  # fmt: skip


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_what_a_model_holds_outside_its_submodules_is_left_as_it_was(mode):
    model = Hoarder().train()
    before = repr(_hoard(model))
    with bystander(model, mode=mode) as lent:
        lent(torch.randn(5, 4))
        assert model.teacher[0].training == (mode == "train")
    assert repr(_hoard(model)) == before


def test_a_loss_that_is_a_module_is_left_as_it_was_however_it_is_reached():
    loss = nn.BatchNorm1d(2)
    model, before = nn.Linear(2, 2), _picture(loss)
    for beside in (loss, lambda x: loss(x), functools.partial(lambda layer, x: layer(x), loss), loss.forward):
        with bystander(model, mode="train", beside=(beside,)) as lent:
            beside(lent(torch.randn(5, 2)))
        assert _picture(loss) == before


def test_a_restoration_that_is_interrupted_is_done_again():
    done = []

    def restore():
        done.append(len(done))
        if len(done) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _surely(restore)
    assert done == [0, 1]


def test_weights_that_training_has_cached_are_neither_read_nor_replaced():
    model = torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))
    with torch.nn.utils.parametrize.cached():
        cached = model.weight
        with torch.no_grad():
            model.parametrizations.weight.original0.mul_(2)
        with bystander(model) as lent:
            assert not torch.equal(lent.weight, cached)
        assert model.weight is cached


def test_anomaly_mode_is_off_inside_and_on_again_afterwards():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch says that it is slow
        with torch.autograd.detect_anomaly():
            with bystander(nn.Linear(2, 2)):
                assert not torch.is_anomaly_enabled()
            assert torch.is_anomaly_enabled()


def test_a_seed_that_the_user_has_left_for_a_device_not_in_use_yet_stays(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    tracker = torch.cuda._lazy_seed_tracker
    before = list(tracker.get_calls())
    state = torch.get_rng_state()
    try:
        seed_random_state(3)
        first = torch.rand(4)
        seed_random_state(3)
        assert torch.equal(torch.rand(4), first)
    finally:
        torch.set_rng_state(state)
    assert list(tracker.get_calls()) == before


def test_measuring_leaves_no_seed_for_devices_not_in_use_yet():
    if torch.cuda.is_initialized():
        pytest.skip("CUDA is in use: its states are put back instead")
    before = list(torch.cuda._lazy_seed_tracker.get_calls())
    tv.measure(nn.Linear(2, 2), batch=(torch.eye(2), torch.zeros(2, 2)), loss=nn.functional.mse_loss, seed=17,
               what=["hessian.top", "loss.train"])  # fmt: skip
    assert list(torch.cuda._lazy_seed_tracker.get_calls()) == before
