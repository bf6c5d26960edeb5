"""The first promise: a watched run is bit for bit the unwatched one, at every step.

Each kind of training is run twice from the same seeds, once plain and once with every metric there is, most of them
at every step; losses and gradients at every step, and weights, buffers, optimiser state and random states at the end
must be equal to the last bit.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import trainvitals as tv
from trainvitals.diagnostics.registry import registered

NUM_STEPS = 6
GROUPS = [i % 2 for i in range(20)]
EVERYTHING = {name: {} for name in registered()} | {  # by name: dear ones, and what is on request, are measured too
    "landscape": {"num_points": 3}, "adv": {"epsilon": 0.1, "num_steps": 2}, "ntk": {"num_samples": 2},
    "lipschitz": {"num_samples": 4}, "jacobian.spectrum": {"num_samples": 2}, "feature.response": {"features": [0, 1]},
    "per_group": {"groups": GROUPS, "heldout_groups": GROUPS}, "grad.per_group": {"groups": GROUPS},
}  # fmt: skip
EVERY = dict.fromkeys(EVERYTHING, 1) | {"hessian.condition": 3, "hessian.density": 3}  # the dearest two, for time


class AugmentedImages(Dataset):
    """Images disturbed by draws from Python's, NumPy's and torch's generators."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(11)
        self.y = torch.arange(48) % 3
        self.x = torch.randn(48, 1, 6, 6, generator=generator) + self.y[:, None, None, None]

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x = self.x[index] + 0.1 * torch.randn(1, 6, 6) * random.random() + 0.1 * np.random.rand()
        return x.float(), self.y[index]


def _conv_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout2d(0.2), nn.Flatten(),
        nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3),
    )  # fmt: skip


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, 0.1, batch_first=True), 2)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x.squeeze(1))).mean(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x.squeeze(1))[0][:, -1])


Kind = tuple[Callable[[], nn.Module], Callable[[nn.Module], torch.optim.Optimizer], str]
KINDS: dict[str, Kind] = {
    "sgd_momentum_batchnorm_dropout": (_conv_net, lambda m: torch.optim.SGD(m.parameters(), 0.05, 0.9), "plain"),
    "nesterov_weight_decay": (
        _conv_net, lambda m: torch.optim.SGD(m.parameters(), 0.05, 0.9, weight_decay=1e-3, nesterov=True), "plain",
    ),
    "adam_scheduler": (_conv_net, lambda m: torch.optim.Adam(m.parameters(), 3e-3), "scheduler"),
    "adamw_transformer_clipping": (Transformer, lambda m: torch.optim.AdamW(m.parameters(), 3e-3), "clipping"),
    "accumulation": (_conv_net, lambda m: torch.optim.SGD(m.parameters(), 0.05), "accumulation"),
    "bf16_autocast": (_conv_net, lambda m: torch.optim.SGD(m.parameters(), 0.05, 0.9), "autocast"),
    "lbfgs_closure": (_conv_net, lambda m: torch.optim.LBFGS(m.parameters(), max_iter=3), "closure"),
    "lstm_user_hooks_evaluation": (Recurrent, lambda m: torch.optim.RMSprop(m.parameters(), 1e-3), "hooks"),
    "frozen_layer_keeps_grad": (_conv_net, lambda m: torch.optim.SGD(m.parameters(), 0.05, 0.9), "frozen"),
}  # fmt: skip


def _batches(loader: DataLoader) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from loader


def train(kind: str, watched: bool, folder: str) -> dict:
    make_model, make_optimizer, variant = KINDS[kind]
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    model = make_model().train()
    if variant == "frozen":
        model[0].requires_grad_(False)
    optimizer = make_optimizer(model)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    loader = DataLoader(AugmentedImages(), batch_size=8, shuffle=True)
    seen: dict = {"losses": [], "gradients": [], "hook_calls": []}
    if variant == "hooks":
        model.lstm.register_forward_hook(lambda *_: seen["hook_calls"].append(model.training))
        model.head.weight.register_hook(lambda g: g * 1.5)
    context = nullcontext()
    if watched:
        context = tv.watch(
            model, optimizer, loss=F.cross_entropy, train=loader, heldout=loader, store=folder,
            probes=EVERYTHING, every=EVERY, probe_samples=20,
        )  # fmt: skip
    with context:
        batches = _batches(loader)
        for _ in range(NUM_STEPS):
            _one_step(model, optimizer, batches, variant, seen)
            if variant == "scheduler":
                scheduler.step()
            seen["gradients"].append([None if p.grad is None else p.grad.clone() for p in model.parameters()])
    state = optimizer.state_dict()
    return seen | {
        "weights": [p.detach().clone() for p in model.parameters()],
        "buffers": [b.clone() for b in model.buffers()],
        "optimizer": state,
        "modes": [m.training for m in model.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "optimizer_hooks": (len(optimizer._optimizer_step_post_hooks), len(optimizer._optimizer_step_pre_hooks)),
        "random": (random.getstate(), str(np.random.get_state()), torch.get_rng_state()),
    }


def _one_step(model, optimizer, batches, variant: str, seen: dict) -> None:
    def loss_of_next() -> Tensor:
        x, y = next(batches)
        with torch.autocast("cpu", torch.bfloat16, enabled=variant == "autocast"):
            loss = F.cross_entropy(model(x), y)
        seen["losses"].append(loss.item())
        return loss

    if variant == "closure":
        x, y = next(batches)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            seen["losses"].append(loss.item())
            return loss

        optimizer.step(closure)
        return
    optimizer.zero_grad(set_to_none=variant != "hooks")
    for _ in range(3 if variant == "accumulation" else 1):
        loss_of_next().backward()
    if variant == "clipping":
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    optimizer.step()
    if variant == "hooks":
        model.eval()
        with torch.inference_mode():
            model(next(batches)[0])
        model.train()


def assert_same(a: object, b: object, where: str) -> None:
    assert type(a) is type(b), where
    if isinstance(a, Tensor):
        assert a.dtype == b.dtype, where
        assert torch.equal(a, b), where  # bit for bit
    elif isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            assert_same(a[key], b[key], f"{where}[{key!r}]")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


FAST = ("sgd_momentum_batchnorm_dropout", "adam_scheduler")  # the others take as long again, each


@pytest.mark.parametrize("kind", [k if k in FAST else pytest.param(k, marks=pytest.mark.slow) for k in KINDS])
def test_a_watched_run_is_the_unwatched_one_bit_for_bit(kind, tmp_path):
    plain = train(kind, False, str(tmp_path))
    watched = train(kind, True, str(tmp_path))
    assert_same(watched, plain, kind)
    with tv.open_run("latest", store=tmp_path) as run:
        assert run.last_step == NUM_STEPS  # the probes did run: the test compares something
        assert len(run.series("hessian.top")["step"].unique()) == NUM_STEPS + 1
        assert run.events().query("kind == 'warning'").empty


def test_the_comparison_can_fail(tmp_path):
    plain, other = (train("adam_scheduler", False, str(tmp_path)) for _ in range(2))
    other["weights"][0].view(-1)[0] += 1e-7
    with pytest.raises(AssertionError, match="weights"):
        assert_same(other, plain, "run")
