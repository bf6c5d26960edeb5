"""A worker's bench: the model, into which one checkpoint after the other is put.

It holds the model and the weights of the first checkpoint; with the one that is being read that is all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from trainvitals.checkpoints import loaders
from trainvitals.checkpoints.errors import CheckpointError
from trainvitals.checkpoints.finding import Checkpoint
from trainvitals.checkpoints.fitting import check_finite, fit, matched
from trainvitals.checkpoints.loaders.contents import Contents
from trainvitals.checkpoints.optimizer_state import UnknownOptimizer, optimizer_of
from trainvitals.checkpoints.plan import Plan, SealedPlan, built, opened
from trainvitals.checkpoints.weights_snapshot import measure_weights, trainable
from trainvitals.diagnostics.base import Diagnostic, Missing
from trainvitals.diagnostics.registry import select
from trainvitals.probes.measure import take_readings
from trainvitals.probes.product_choice import products_of
from trainvitals.probes.subject import Subject, make_subject
from trainvitals.schema import Reading

LEARNING_RATE = "learning_rate"


class Bench:
    """One plan in one process."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.kept: dict[str, Any] = {}  # what jobs of one metric share, a few checkpoints at most
        self.note: str | None = None  # what the last checkpoint did not give, in words

    @cached_property
    def subject(self) -> Subject:
        """The model with the first checkpoint's weights, checked against the probe as a live run checks it."""
        plan, first = self.plan, loaders.load(self.plan.first.path)
        model = built(plan)
        fit(model, first.weights, plan.first.label)
        first.weights = {}
        subject = make_subject(
            model, loss=plan.loss, forward=plan.forward, train=plan.batch, heldout=plan.heldout,
            mode=plan.mode, seed=plan.seed, call="trainvitals.analyze",
        )  # fmt: skip
        self._equip(subject, first)
        subject.products = products_of(subject, plan.products, plan.max_memory_bytes, patience=0)
        return subject

    @cached_property
    def first_weights(self) -> Mapping[str, Tensor]:
        """The first checkpoint's weights, where there is no model."""
        found = trainable(loaders.load(self.plan.first.path).weights)
        check_finite(found, self.plan.first.label)
        return found

    def readings(self, checkpoint: Checkpoint, diagnostics: Sequence[Diagnostic]) -> dict[str, Reading]:
        """Measure a checkpoint.

        Raises:
            CheckpointError: if it cannot be read, or is not this model's.
        """
        if self.plan.is_of_weights:
            first = self.first_weights
            contents = loaders.load(checkpoint.path)
            check_finite(contents.weights, checkpoint.label)
            found = measure_weights(contents, first, diagnostics, checkpoint.step, self.plan.seed)
        else:
            self._recall_the_start()
            contents = self.put(checkpoint)
            found = take_readings(self.subject, diagnostics, step=checkpoint.step)
        rates = contents.learning_rates
        if rates and LEARNING_RATE in found and found[LEARNING_RATE].value is None:  # of an optimiser of another kind
            keys = tuple(map(str, range(len(rates))))
            found[LEARNING_RATE] = Reading(torch.tensor(rates, dtype=torch.float64).numpy(), keys=keys)
        return found

    def _recall_the_start(self) -> None:
        """Hold the first checkpoint's weights, from which growth and distances count."""
        if self.subject.initial_parameters is None:
            self.put(self.plan.first)
            self.subject.initial_parameters = self.subject.weights_at_start()

    def put(self, checkpoint: Checkpoint) -> Contents:
        """Put a checkpoint's weights and optimiser into the subject; return what is left of it."""
        subject = self.subject
        contents = loaders.load(checkpoint.path)
        fit(subject.model, contents.weights, checkpoint.label)
        contents.weights = {}
        self._equip(subject, contents)
        return contents

    def weights(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        """Return a checkpoint's tensors under the model's names, buffers included where there is a model.

        Raises:
            CheckpointError: if it cannot be read, or is not this model's.
        """
        self.kept.clear()  # makes room: no more than three checkpoints are held at a time
        if not self.plan.is_of_weights:
            self.subject.initial_parameters = None
        contents = loaders.load(checkpoint.path)
        if not self.plan.is_of_weights:
            return matched(self.subject.model, contents.weights, checkpoint.label)
        found, first = trainable(contents.weights), self.first_shapes
        check_finite(found, checkpoint.label)
        shapes = {name: tensor.shape for name, tensor in found.items()}
        if shapes != first:
            odd = next(iter(set(shapes.items()) ^ set(first.items())))[0]
            raise CheckpointError(
                f"expected the tensors of the first checkpoint, got others ({odd!r} among them) in "
                f"{checkpoint.label}; analyse one model at a time"
            )
        return found

    @cached_property
    def first_shapes(self) -> dict[str, torch.Size]:
        """The shapes of the first checkpoint's tensors, where there is no model."""
        return {name: tensor.shape for name, tensor in self.first_weights.items()}

    @cached_property
    def trained_names(self) -> frozenset[str] | None:
        """The names of what is trained; None without a model, where `weights` gives nothing else."""
        if self.plan.is_of_weights:
            return None
        return frozenset(name for name, p in self.subject.model.named_parameters() if p.requires_grad)

    def _equip(self, subject: Subject, contents: Contents) -> None:
        subject.optimizer, self.note = None, None
        if contents.optimizer is None:
            return
        try:
            subject.optimizer = optimizer_of(subject.model, contents.optimizer, self.plan.make_optimizer)
        except UnknownOptimizer as reason:
            self.note = (
                f"the optimizer's state is not used: {reason}; pass optimizer=, a function of the model that makes it"
            )

    def loss(self, heldout: bool = False) -> float:
        """Return the loss of the model as it stands, on the train or the held-out probe."""
        name = "loss.heldout" if heldout else "loss.train"
        reading = take_readings(self.subject, select([name]))[name]
        if reading.value is None:
            raise Missing(str(reading.missing))
        return float(reading.value)


@lru_cache(maxsize=1)
def bench_of(plan: SealedPlan) -> Bench:
    """Return this process's bench for a plan."""
    return Bench(opened(plan))
