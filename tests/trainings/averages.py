"""Trainings with learning-rate schedules, and with averages of weights."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.optim import lr_scheduler, swa_utils

from trainings.base import (
    forever,
    kind,
    mlp,
    small,
)


@kind
def schedule_of_every_step(device):
    yield (t := small(device, optimizer=lambda m: torch.optim.AdamW(m.parameters(), 3e-3)))
    t.beside["scheduler"] = scheduler = lr_scheduler.OneCycleLR(t.optimizer, 0.01, total_steps=8)
    for _ in forever(t):
        scheduler.step()
        yield


@kind
def schedules_of_epochs(device):
    yield (t := small(device))
    cosine = lr_scheduler.CosineAnnealingWarmRestarts(t.optimizer, 2)
    plateau = lr_scheduler.ReduceLROnPlateau(t.optimizer, patience=0, factor=0.5)
    t.beside |= {"cosine": cosine, "plateau": plateau}
    for index, _ in enumerate(forever(t), 1):
        if index % len(t.data) == 0:
            cosine.step()
            plateau.step(t.losses[-1])
        yield


@kind
def stochastic_weight_averaging(device):
    yield (t := small(device))
    averaged = swa_utils.AveragedModel(t.model)
    t.beside |= {"averaged": averaged, "scheduler": swa_utils.SWALR(t.optimizer, 0.02, anneal_epochs=2)}
    for _ in forever(t):
        averaged.update_parameters(t.model)
        t.beside["scheduler"].step()
        swa_utils.update_bn([t.batch()[0]], averaged)
        yield


@kind
def moving_average_of_weights_and_buffers(device):
    yield (t := small(device))
    average = swa_utils.get_ema_multi_avg_fn(0.9)
    t.beside["averaged"] = averaged = swa_utils.AveragedModel(t.model, multi_avg_fn=average, use_buffers=True)
    for _ in forever(t):
        averaged.update_parameters(t.model)
        yield


@kind
def mean_teacher_held_in_a_list(device):
    class Taught(nn.Module):
        def __init__(self):
            super().__init__()
            self.student = mlp()
            self.teacher = [copy.deepcopy(self.student)]  # no submodule: it is neither trained nor saved

        def forward(self, x):
            with torch.no_grad():
                aim = self.teacher[0](x)
            return self.student(x) + 0.1 * aim

    yield (t := small(device, Taught))
    t.beside["teacher"] = teacher = t.model.teacher[0].to(device)
    for _ in forever(t):
        with torch.no_grad():
            for old, new in zip(teacher.parameters(), t.model.student.parameters(), strict=True):
                old.lerp_(new, 0.1)
        yield
