"""Holdings: what a walk from a model finds, and where it stops."""

import random
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from trainvitals.probes.holdings import holdings

TEACHER = nn.Linear(1, 1)


class Trainer:
    def __init__(self) -> None:
        self.log: list[int] = []
        self.rng = random.Random(1)


def loss_that_reads_a_global(outputs):
    return TEACHER(outputs)


def test_modules_are_found_in_containers_closures_globals_and_bound_methods():
    student, hidden, closed = nn.Linear(1, 1), nn.ReLU(), nn.Tanh()
    student.others = {"a": [(hidden,)]}  # pyright: ignore[reportArgumentType]
    found = holdings((student, lambda x: closed(x), loss_that_reads_a_global, nn.Sigmoid().forward)).modules
    assert {student, hidden, closed, TEACHER} <= set(found)
    assert any(isinstance(module, nn.Sigmoid) for module in found)
    assert len(found) == len({id(module) for module in found})


def test_generators_are_found_in_helper_objects():
    model = nn.Linear(1, 1)
    model.noise = SimpleNamespace(rng=np.random.default_rng(0), others=[torch.Generator()])  # pyright: ignore
    assert len(holdings((model,)).generators) == 2


def test_containers_that_only_a_function_leads_to_are_left_alone():
    trainer, model = Trainer(), nn.Linear(1, 1)
    found = holdings((model, lambda x: trainer.log.append(x)))
    assert not any(container is trainer.log for container in found.containers)
    assert found.generators == [trainer.rng]


def test_a_walk_from_a_model_does_not_take_in_a_trainer_of_another_package():
    model, trainer = nn.Linear(1, 1), Trainer()
    model.trainer = trainer  # pyright: ignore: the model is of torch, the trainer is not
    found = holdings((model,))
    assert found.generators == []
    assert not any(container is trainer.log for container in found.containers)


def test_a_circle_and_a_deep_nest_end():
    model = nn.Linear(1, 1)
    nest: list = []
    nest.append(nest)
    deep: list = []
    for _ in range(100):
        deep = [deep]
    model.nest, model.deep = nest, deep  # pyright: ignore[reportArgumentType]
    assert any(container is nest for container in holdings((model,)).containers)
