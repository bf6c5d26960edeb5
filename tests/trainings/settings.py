"""Trainings with workers, evaluations and saving in between, and torch's switches set."""

from __future__ import annotations

import copy
import io
import os
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from trainings.base import (
    BATCH,
    AugmentedImages,
    conv_net,
    forever,
    kind,
    small,
    vectors,
)


class AugmentedInWorkers(AugmentedImages):
    """The same, with the number of the process that made each image in its corner."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = super().__getitem__(index)
        x[0, 0, 0] = float(os.getpid() != _MAIN_PROCESS)
        return x, y


_MAIN_PROCESS = os.getpid()


@kind
def loader_with_workers(device):
    own = torch.Generator().manual_seed(7)
    loader = DataLoader(
        AugmentedInWorkers(), BATCH, shuffle=True, generator=own, num_workers=1, persistent_workers=True
    )
    yield (t := small(device, conv_net, data=loader, beside={"generator": own}))
    seen = []
    t.model[0].register_forward_pre_hook(lambda m, inputs: seen.append(float(inputs[0][:, 0, 0, 0].min())))
    t.is_genuine = lambda: set(seen) == {1.0}
    yield from forever(t)


@kind
def evaluations_in_between(device):
    yield (t := small(device))
    for _ in forever(t):
        t.model.eval()
        with torch.inference_mode():
            t.losses.append(F.cross_entropy(t.model(t.batch()[0]), t.batch()[1]).item())
        with torch.no_grad():
            t.losses.append(F.cross_entropy(t.model(t.batch()[0]), t.batch()[1]).item())
        t.model.train()
        t.model[1].eval()  # a frozen BatchNorm
        yield


@kind
def saving_loading_and_copying_in_between(device):
    yield (t := small(device))
    t.step()
    file = io.BytesIO()
    torch.save({"model": t.model.state_dict(), "optimizer": t.optimizer.state_dict(), "whole": t.model}, file)
    yield
    t.beside["copies"] = copy.deepcopy(t.model), copy.deepcopy(t.optimizer)
    t.step()
    yield
    saved = torch.load(io.BytesIO(file.getvalue()), weights_only=False)
    t.model.load_state_dict(saved["model"])
    t.optimizer.load_state_dict(saved["optimizer"])
    yield from forever(t)


@kind
def deterministic_algorithms(device):
    torch.use_deterministic_algorithms(True)
    try:
        yield (t := small(device, conv_net, data=DataLoader(AugmentedImages(), BATCH, shuffle=True)))
        yield from forever(t)
    finally:
        torch.use_deterministic_algorithms(False)


@kind
def anomaly_detection(device):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch says that it is slow
        with torch.autograd.detect_anomaly():
            yield (t := small(device))
            yield from forever(t)


@kind
def default_device_and_no_gradients_outside_the_step(device):
    with torch.device(device), torch.set_grad_enabled(False):
        yield (t := small(device, data=[(x.to(device), y.to(device)) for x, y in vectors(False)]))
        while True:
            with torch.enable_grad():
                t.step()
            yield
