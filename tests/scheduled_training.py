"""A training whose weights stand still, watched on a schedule without a budget."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

import trainvitals as tv


def trained(tmp_path, num_steps, logged=lambda run: None, **options):
    """Take steps, call `logged(run)` after each, and return the steps at which each metric was measured."""
    model, x, y = nn.Linear(4, 3), torch.randn(12, 4), torch.arange(12) % 3
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    with tv.watch(model, optimizer, loss=F.cross_entropy, train=(x, y), store=tmp_path, budget=None, **options) as run:
        for _ in range(num_steps):
            optimizer.step()
            logged(run)
    with tv.open_run(run.id, store=tmp_path) as read:
        return {name: read.series(name)["step"].unique().tolist() for name in read.names() if "." in name}
