"""A short real training, watched live and saved every few steps: what analyses of its checkpoints are held against."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import trainvitals as tv
from trainvitals.diagnostics.base import Needs
from trainvitals.diagnostics.registry import registered

EVERY = 3

# What needs successive training steps, or counts a live run's cost, is not in an analysis.
LIVE_ONLY = ("probe.", "data.", *(
    metric for cls in registered().values() if cls.needs & Needs.TRAJECTORY for metric in cls.descriptions()
))  # fmt: skip


def build() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(6, 10), nn.BatchNorm1d(10), nn.Tanh(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3)
    ).to(torch.get_default_dtype())


def build_double() -> nn.Module:
    return build().double()


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, targets)


def probes(dtype: torch.dtype = torch.float64) -> dict[str, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    means = 1.5 * torch.randn(3, 6, generator=generator, dtype=torch.float64)
    y = torch.arange(48) % 3
    draws = [(means[y] + torch.randn(48, 6, generator=generator, dtype=torch.float64)).to(dtype) for _ in range(2)]
    return {"batch": (draws[0], y), "heldout": (draws[1], y)}


@dataclass
class Trained:
    folder: Path
    run: Path  # of the live run
    dtype: torch.dtype

    @property
    def arguments(self) -> dict:
        return {**probes(self.dtype), "build": build_double if self.dtype == torch.float64 else build, "loss": loss}


def train(folder: Path, what, num_checkpoints: int, dtype: torch.dtype = torch.float64) -> Trained:
    """Train, watch every few steps, and save at those steps."""
    model, given = build().to(dtype), probes(dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    x, y = given["batch"]
    saved = folder / "checkpoints"
    saved.mkdir(parents=True)

    def save(step: int) -> None:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
        torch.save(copy.deepcopy(state), saved / f"step_{step}.pt")

    with tv.watch(model, optimizer, loss=loss, train=(x, y), heldout=given["heldout"], probes=what, every=EVERY,
                  budget=None, store=folder / "live", name="live") as run:  # fmt: skip
        save(0)
        for step in range(1, EVERY * (num_checkpoints - 1) + 1):
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()
            if step % EVERY == 0:
                save(step)
    return Trained(saved, Path(run.path), dtype)


def assert_same_numbers(live: tv.Run, post: tv.Run, tolerance: float) -> int:
    """Compare every metric at every step; return how many numbers agreed. Raises with the first that does not."""
    num = 0
    names = [name for name in live.names() if not name.startswith(LIVE_ONLY)]
    assert set(names) <= set(post.names()), sorted(set(names) - set(post.names()))
    for name in names:
        left, right = (_table(run, name) for run in (live, post))
        assert list(left.index) == list(right.index), (name, left.index.symmetric_difference(right.index)[:5])
        scale = np.maximum(np.abs(left["value"]), np.abs(left["value"]).max() * 1e-6 if len(left) else 0)
        worst = np.abs(left["value"] - right["value"]) / np.maximum(scale, 1e-9)
        both_lost = ~np.isfinite(left["value"]) & ~np.isfinite(right["value"])
        assert (worst[~both_lost] <= tolerance).all(), (name, worst.idxmax(), float(worst.max()))
        left, right = (run.missing(name)[["step", "reason"]].to_numpy().tolist() for run in (live, post))
        assert left == right, name
        num += len(worst)
    return num


def _table(run: tv.Run, name: str) -> pd.DataFrame:
    frame = run.series(name)
    assert not frame.duplicated(["step", "key"]).any(), name
    return frame.set_index(["step", "key"]).sort_index()
