"""Checkpoints of all formats for the tests: a small model, its optimiser, and pickles that would run code."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn


def build() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).double()


def batch() -> tuple[Tensor, Tensor]:
    x = torch.randn(24, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x, torch.arange(24) % 3


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, targets)


def trained(num_steps: int = 1) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(num_steps):
        optimizer.zero_grad()
        loss(model(batch()[0]), batch()[1]).backward()
        optimizer.step()
    return model, optimizer


def as_pt(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> Path:
    path = folder / f"step_{step}.pt"
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, path)
    return path


def as_safetensors(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> Path:
    path = folder / f"weights-{step}.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path, {"global_step": str(step)})
    return path


def as_lightning(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> Path:
    path = folder / f"epoch=1-step={step}.ckpt"
    torch.save({
        "state_dict": {**{f"model.{k}": v for k, v in model.state_dict().items()}, "criterion.weight": torch.ones(3)},
        "optimizer_states": [optimizer.state_dict()], "global_step": step, "epoch": 1, "lr_schedulers": [],
        "pytorch-lightning_version": "2.5.0", "hyper_parameters": {"lr": 0.01}, "callbacks": {}, "loops": {},
    }, path)  # fmt: skip
    return path


def as_hugging_face(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> Path:
    """Two shards and an index, as `save_pretrained` writes for large models, and the Trainer's state."""
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    weights = {k: v.contiguous() for k, v in model.state_dict().items()}
    names = list(weights)
    homes = {k: f"model-0000{1 + (i > 3)}-of-00002.safetensors" for i, k in enumerate(names)}
    for home in set(homes.values()):
        save_file({k: weights[k] for k in names if homes[k] == home}, path / home, {"format": "pt"})
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": homes}))
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step, "epoch": 2.0, "log_history": []}))
    torch.save(optimizer.state_dict(), path / "optimizer.pt")
    (path / "training_args.bin").write_bytes(b"never opened")
    return path


def as_old_hugging_face(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    weights = model.state_dict()
    homes = {k: f"pytorch_model-0000{1 + (i > 3)}-of-00002.bin" for i, k in enumerate(weights)}
    for home in set(homes.values()):
        torch.save({k: v for k, v in weights.items() if homes[k] == home}, path / home)
    (path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": homes}))
    torch.save(optimizer.state_dict(), path / "optimizer.pt")
    return path


def as_accelerate(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> Path:
    path = folder / f"checkpoint_{step}"
    path.mkdir()
    torch.save(model.state_dict(), path / "pytorch_model.bin")
    torch.save(optimizer.state_dict(), path / "optimizer.bin")
    (path / "random_states_0.pkl").write_bytes(b"never opened")
    return path


def as_distributed(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> Path:
    import torch.distributed.checkpoint as dcp

    path = folder / f"step-{step}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(
            {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, checkpoint_id=path
        )
    return path


FORMATS: dict[str, Callable[..., Path]] = {
    "torch": as_pt, "safetensors": as_safetensors, "lightning": as_lightning, "hugging face": as_hugging_face,
    "hugging face .bin": as_old_hugging_face, "accelerate": as_accelerate, "torch.distributed": as_distributed,
}  # fmt: skip


class Malicious:
    """A pickle that makes a folder when it is opened."""

    def __init__(self, trace: Path) -> None:
        self.trace = str(trace)

    def __reduce__(self):
        return os.mkdir, (self.trace,)
