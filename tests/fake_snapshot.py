"""A snapshot made of given tensors, for diagnostics tested without a model."""

from types import SimpleNamespace

import torch

from trainvitals.diagnostics.base import Classifier, Evaluation, Missing, Trajectory
from trainvitals.diagnostics.gradient_gram import GradientGram
from trainvitals.diagnostics.gradient_sums import GradientSums


class FakeSnapshot(SimpleNamespace):
    """Has the attributes given; the others raise Missing, as a snapshot without them does."""

    step = 0

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        raise Missing(f"no {name}")

    def once(self, function):
        memory = self.__dict__.setdefault("_memory", {})
        if function not in memory:
            memory[function] = function(self)
        return memory[function]


def with_gradients(gradients, labels=None, num_classes=None, **options):
    """A snapshot whose per-sample gradients are the rows of (N, P)."""
    sums = GradientSums({"w": gradients.shape[1:]}, num_classes, **options)
    sums.add(gradients, labels)
    gram = GradientGram(torch.arange(len(gradients)))
    gram.add(gradients)
    return FakeSnapshot(gradient_sums=sums, gradient_gram=gram, num_samples=len(gradients))


def evaluation(loss, outputs=None, targets=None):
    outputs = torch.zeros(4, 1) if outputs is None else outputs
    return Evaluation(loss, outputs, targets, len(outputs))


def with_features(features, labels, weight, outputs=None):
    """A snapshot of a classifier with these features (N, D), labels (N,) and weight (C, D)."""
    outputs = features @ weight.T if outputs is None else outputs
    return FakeSnapshot(
        features=features,
        classifier=Classifier("fc", weight, None),
        train=Evaluation(0.0, outputs, labels, len(labels)),
    )


def with_steps(gradient, update, previous_gradient=None, previous_update=None, **attributes):
    return FakeSnapshot(trajectory=Trajectory(gradient, update, previous_gradient, previous_update), **attributes)
