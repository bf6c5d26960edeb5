"""One step as diagnostics see it: everything they declared they need, produced once.

The merged needs of what is due decide how the one forward pass over the train probe is run: on the
double-backward graph if anything wants Hessian products, with a plain graph if only the gradient is
wanted, without a graph otherwise. Activations, features, outputs and losses fall out of that same pass.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from trainvitals.diagnostics.base import (
    Diagnostic,
    Evaluation,
    Missing,
    Needs,
    OptimizerView,
    Trajectory,
)
from trainvitals.diagnostics.batch_loss import BatchLoss, mean_gradient
from trainvitals.diagnostics.gradient_gram import GradientGram, num_chosen
from trainvitals.diagnostics.gradient_sums import GradientSums
from trainvitals.diagnostics.input_loss import InputLoss
from trainvitals.diagnostics.linalg.hvp import HessianOperator
from trainvitals.diagnostics.linalg.products import Products
from trainvitals.probes.activations import Capture, main_tensor
from trainvitals.probes.batch_losses import batch_losses, mini_batches, some_samples
from trainvitals.probes.captured_layers import CapturedLayers, TrainCapture, heldout_capture
from trainvitals.probes.gradient_folds import FoldPlan, fold_together
from trainvitals.probes.gradients import gradients_of, per_sample_gradients
from trainvitals.probes.input_losses import input_losses
from trainvitals.probes.meter import Meter
from trainvitals.probes.norm_layers import norm_parameters
from trainvitals.probes.optimizer_view import optimizer_view
from trainvitals.probes.probe_batch import ProbeBatch
from trainvitals.probes.sample_losses import check_mean, sample_losses
from trainvitals.probes.subject import Subject
from trainvitals.probes.unit_utilities import unit_utilities

T = TypeVar("T")
Progress = Callable[[str, int, int], None]  # (metric, done, total)
TRAIN_PASS = "train pass"  # the part of the meter that is the plain pass over the train probe


class ModelSnapshot(CapturedLayers):
    """Implements `trainvitals.diagnostics.base.Snapshot` on a live model. Use inside `bystander`.

    Args:
        subject: the model, its loss and its probe batches.
        due: the diagnostics measured at this step, by name.
        step: optimiser steps taken.
        trajectory: gives the last two steps' gradients and updates; raises `Missing` without them.
        progress: hears (name, done, total) of long measurements.
        meter: told whose time it was.
    """

    def __init__(
        self,
        subject: Subject,
        due: Mapping[str, Diagnostic],
        *,
        step: int = 0,
        trajectory: Callable[[], Trajectory] | None = None,
        progress: Progress | None = None,
        meter: Meter | None = None,
    ) -> None:
        self.step = step
        self.mode = subject.mode
        self._subject = subject
        self._due = due
        self._trajectory = trajectory
        self._progress = progress
        self._meter = meter or Meter()
        self._memory: dict[Callable[..., Any], Any] = {}
        self._train_chunks: list[tuple[Tensor, Tensor]] | None = None  # loss and outputs of each chunk
        self._gradient: Mapping[str, Tensor] = {}
        self._gram: GradientGram | None = None
        self._no_hessian: str | None = None
        self._is_capturing = False
        self._needs = Needs.NOTHING
        for diagnostic in due.values():
            self._needs |= diagnostic.needs

    # What diagnostics read ----------------------------------------------------------------------

    @property
    def num_samples(self) -> int:
        return self._subject.train.num_samples

    @property
    def num_hvps(self) -> int:
        """Hessian-vector products done so far in this snapshot."""
        return self.hessian.num_products if "hessian" in vars(self) else 0

    @cached_property
    def parameters(self) -> Mapping[str, Tensor]:
        return self._subject.parameters()

    @property
    def norm_parameters(self) -> frozenset[str]:
        return norm_parameters(self._subject.model)

    @property
    def initial_parameters(self) -> Mapping[str, Tensor]:
        if self._subject.initial_parameters is None:
            raise Missing("the weights at the start of the run are not known")
        return self._subject.initial_parameters

    @property
    def trajectory(self) -> Trajectory:
        if self._trajectory is None:
            raise Missing("needs successive training steps of a watched run")
        return self._trajectory()

    @cached_property
    def optimizer(self) -> OptimizerView:
        if self._subject.optimizer_seen is not None:
            return self._subject.optimizer_seen
        if self._subject.optimizer is None:
            raise Missing("no optimizer was given")
        return optimizer_view(self._subject.optimizer, self._subject.model)

    @cached_property
    def train(self) -> Evaluation:
        self._run_train_pass()
        return _evaluation(self._subject.train, self._train_chunks or [])

    @cached_property
    def heldout(self) -> Evaluation:
        return _evaluation(self._heldout_batch(), self._heldout_chunks)

    @cached_property
    def heldout_sets(self) -> Mapping[str, Evaluation]:
        main = self._heldout_batch()
        return {
            name: self.heldout if batch is main else _evaluation(batch, self._passes(batch, None))
            for name, batch in self._subject.heldout_sets.items()
        }

    @property
    def sample_losses(self) -> Tensor:
        return self.once(_train_sample_losses)

    @property
    def heldout_sample_losses(self) -> Tensor:
        return self.once(_heldout_sample_losses)

    @cached_property
    def unit_utilities(self) -> Mapping[str, Tensor | None]:
        return unit_utilities(self._subject, self.parameters)

    @cached_property
    def gradient(self) -> Mapping[str, Tensor]:
        self._run_train_pass()
        if "hessian" not in vars(self):
            return self._gradient if self._subject.crew is None else self._gradient_together()
        found = self.hessian.split(self.hessian.gradient)
        return {name: found[name].to(p.device, p.dtype) for name, p in self.parameters.items()}

    @cached_property
    def gradient_sums(self) -> GradientSums:
        with self._meter.part("gradients per sample"):
            return self._gradient_sums()

    def _gradient_sums(self) -> GradientSums:
        batch, parameters = self._subject.train, self.parameters
        self._check_real()
        labels, num_classes = self._labels()
        layout = {name: p.shape for name, p in parameters.items()}
        sums, gram = GradientSums(layout, num_classes), self._new_gram()
        if self._subject.crew is not None:
            plan = FoldPlan(labels, num_classes, None if gram is None else gram.chosen)
            sums, self._gram, total = fold_together(self._subject, self._subject.crew, parameters, plan)
            check_mean(self.train.loss, total / batch.num_samples)
            return sums
        total, start = 0.0, 0
        for chunk, size in zip(batch.chunks, batch.sizes, strict=True):
            for gradients, losses in per_sample_gradients(self._mean_loss, parameters, chunk, size):
                count = len(losses)
                sums.add(gradients.detach(), None if labels is None else labels[start : start + count])
                if gram is not None:
                    gram.add(gradients.detach())
                total += float(losses.detach().double().sum())
                start += count
        self._subject.num_passes["backward"] += 1
        check_mean(self.train.loss, total / batch.num_samples)
        self._gram = gram
        return sums

    def _new_gram(self) -> GradientGram | None:
        if not self._needs & Needs.GRADIENT_GRAM:
            return None
        row_bytes = sum(p.numel() * p.element_size() for p in self.parameters.values())
        num = num_chosen(self.num_samples, row_bytes)
        order = torch.randperm(self.num_samples, generator=self.generator("gradient_gram"))
        return GradientGram(order[:num].sort().values)

    @property
    def gradient_gram(self) -> GradientGram:
        """Inner products of the gradients of samples drawn once by the run's seed."""
        _ = self.gradient_sums
        assert self._gram is not None  # what reads it declares Needs.GRADIENT_GRAM
        return self._gram

    @property
    def products(self) -> Products:
        return self._subject.products

    @cached_property
    def hessian(self) -> HessianOperator:
        """Hessian products, on one graph that is built here: its forward pass is the train pass.

        Where memory is bounded, the train pass is one of its own.

        Raises:
            Missing: if the parameters are complex, memory does not suffice, or the pass fails.
        """
        if self._no_hessian is not None:
            raise Missing(self._no_hessian)
        maker = next((name for name, diagnostic in self._due.items() if diagnostic.needs & Needs.HVP), None)
        with self._meter.part("double-backward graph", maker):  # whoever ran the train pass that it stands for
            return self._graph()

    def _graph(self) -> HessianOperator:
        try:
            self._check_real()
            if self._subject.crew is not None:  # this rank's graph is of a part of the probe: nothing to capture
                operator = HessianOperator(self.batch_losses(), self.parameters, self.products)
                _ = operator.gradient
                return operator
            self._train_chunks, self._is_capturing = [], True
            operator = HessianOperator(self._capturing_losses(), self.parameters, self.products)
            _ = operator.gradient
        except Exception as error:
            self._train_chunks = None
            self._no_hessian = str(error) if isinstance(error, Missing) else f"no Hessian here: {error}"
            raise Missing(self._no_hessian) from error
        finally:
            self._is_capturing = False
        if len(self._train_chunks) < len(self._subject.train.chunks):  # it went through micro-batches
            self._train_chunks = None
        return operator

    def _capturing_losses(self) -> list[BatchLoss]:
        """Return the loss on the train probe's chunks; the first gradient's pass over each is captured."""
        batch, names = self._subject.train, list(self.parameters)

        def capturing(index: int, loss: BatchLoss) -> BatchLoss:
            def mean(values: Sequence[Tensor]) -> Tensor:
                if not self._is_capturing or index != len(self._train_chunks or []):
                    return loss.mean(values)
                return self._captured(batch, index, dict(zip(names, values, strict=True)))

            return replace(loss, mean=mean)

        return [capturing(index, loss) for index, loss in enumerate(self.batch_losses())]

    def batch_losses(self, size: int | None = None) -> list[BatchLoss]:
        """Return the loss on the train probe's chunks, or on mini-batches of `size` samples from a seeded shuffle.

        Raises:
            Missing: if the probe holds fewer than two mini-batches of that size, or cannot be cut into them.
        """
        batch, crew = self._subject.train, self._subject.crew
        if size is None and crew is not None:
            return crew.far(batch_losses(self._subject, list(self.parameters), crew.batch))
        if size is not None:
            batch = mini_batches(batch, size, self.generator(f"mini-batches of {size}"))
        return batch_losses(self._subject, list(self.parameters), batch)

    def losses_of(self, rows: Sequence[int]) -> list[BatchLoss]:
        """Return the mean loss on these samples of the train probe, in pieces no larger than the probe's chunks.

        Raises:
            Missing: if the probe's batches cannot be joined and cut.
        """
        return batch_losses(self._subject, list(self.parameters), some_samples(self._subject.train, rows))

    def input_losses(self, *, heldout: bool = False) -> list[InputLoss]:
        """Return the loss on the chunks of the train or the held-out probe as functions of the inputs.

        Raises:
            Missing: without a held-out probe, through `forward=`, or if inputs are not floating-point numbers.
        """
        batch = self._heldout_batch() if heldout else self._subject.train
        return input_losses(self._subject, self.parameters, batch)

    def once(self, function: Callable[[ModelSnapshot], T]) -> T:
        """Return `function(self)`, computed at most once; a `Missing` that it raised is raised again."""
        if function not in self._memory:
            try:
                with self._meter.part(function):
                    self._memory[function] = function(self)
            except Missing as reason:
                self._memory[function] = reason
        self._meter.used(function)
        found = self._memory[function]
        if isinstance(found, Missing):
            raise found
        return found

    def forget(self) -> None:
        """Let go of what `once` has computed: it rests on products that were wrong."""
        self._memory.clear()

    def due(self, name: str) -> Diagnostic | None:
        """Return the diagnostic of that name if it is measured at this step too."""
        return self._due.get(name)

    def generator(self, purpose: str) -> torch.Generator:
        """Return a CPU generator seeded by the run's seed and the purpose; the step does not enter.

        So the same weights give the same numbers, live and from a checkpoint.
        """
        digest = hashlib.sha256(f"{self._subject.seed}:{purpose}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))

    def progress(self, name: str, done: int, total: int) -> None:
        """Tell who waits how far a long measurement has come."""
        if self._progress is not None:
            self._progress(name, done, total)

    def isolated_model(self) -> tuple[nn.Module, Callable[..., Tensor] | None, list[tuple[Any, Any, float]]]:
        """Return a deep copy of the model, the loss, and (inputs, targets, share of samples) per chunk.

        Raises:
            Missing: if the model is called through `forward=`, or cannot be copied.
        """
        if self._subject.forward is not None:
            raise Missing("the model is called through forward=, which other engines cannot")
        try:
            twin = copy.deepcopy(self._subject.model)
        except Exception as error:
            raise Missing(f"the model cannot be copied: {error}") from error
        batch = self._subject.train
        return twin, self._subject.loss, [
            (chunk[0].clone(), chunk[1].clone(), share) for chunk, share in zip(batch.chunks, batch.shares, strict=True)
        ]  # fmt: skip

    def release(self) -> None:
        """Let go of graphs and tensors; nothing can be read afterwards.

        They refer to the snapshot and it to them: Python would keep the double-backward graph of one step until
        it next looks for such circles, many steps later.
        """
        if "hessian" in vars(self):
            self.hessian.release()
        self.products.disown()
        vars(self).clear()

    # How it is produced ---------------------------------------------------------------------------

    def _run_train_pass(self) -> None:
        """Run the one forward pass over the train probe, in the form that the merged needs ask for."""
        if self._train_chunks is None and self._needs & Needs.HVP and self._subject.crew is None:
            with suppress(Missing):
                _ = self.hessian
        if self._train_chunks is not None:
            return
        try:
            with self._meter.part(TRAIN_PASS):
                self._run_plain_pass()
        except BaseException:
            self._train_chunks = None  # half a pass is none
            raise

    def _run_plain_pass(self) -> None:
        self._train_chunks = []  # without what a failed pass left
        self._capture = TrainCapture(self._subject.model, self._due.values())
        batch = self._subject.train
        wants_gradient = bool(self._needs & Needs.GRADIENT) and "hessian" not in vars(self)
        wants_gradient = wants_gradient and self._subject.crew is None
        sums: list[Tensor] | None = None
        for index, share in enumerate(batch.shares):
            with torch.set_grad_enabled(wants_gradient):
                values = {name: p.detach().requires_grad_(wants_gradient) for name, p in self.parameters.items()}
                loss = self._captured(batch, index, values)
            if wants_gradient:
                self._subject.num_passes["backward"] += 1
                parts = gradients_of(loss * share, list(values.values()))
                sums = list(parts) if sums is None else [a + b for a, b in zip(sums, parts, strict=True)]
        self._gradient = dict(zip(self.parameters, sums or [], strict=bool(sums)))

    def _gradient_together(self) -> Mapping[str, Tensor]:
        parts = mean_gradient(self.batch_losses(), list(self.parameters.values()))
        self._subject.num_passes["backward"] += 1
        return dict(zip(self.parameters, parts, strict=True))

    def _captured(self, batch: ProbeBatch, index: int, parameters: Mapping[str, Tensor]) -> Tensor:
        self._subject.num_passes["forward"] += 1
        with self._capture.capturing(batch.sizes[index]):
            loss, outputs = self._subject.loss_and_outputs(parameters, batch.chunks[index])
        assert self._train_chunks is not None
        self._train_chunks.append((loss.detach(), main_tensor(outputs).detach()))
        return loss

    def _heldout_batch(self) -> ProbeBatch:
        if self._subject.heldout is None:
            raise Missing("no held-out probe batch was given (heldout=)")
        return self._subject.heldout

    @cached_property
    def _capture(self) -> TrainCapture:
        return TrainCapture(self._subject.model, self._due.values())

    def _captured_train(self) -> TrainCapture:
        self._run_train_pass()
        return self._capture

    def _captured_heldout(self) -> Capture:
        _ = self._heldout_chunks
        return self._heldout_capture

    def _module(self, name: str) -> nn.Module:
        return self._subject.model if name == "model" else self._subject.model.get_submodule(name)

    @cached_property
    def _heldout_capture(self) -> Capture:
        return heldout_capture(self._subject.model, self._due.values())

    @cached_property
    def _heldout_chunks(self) -> list[tuple[Tensor, Tensor]]:
        return self._passes(self._heldout_batch(), self._heldout_capture)

    def _passes(self, batch: ProbeBatch, capture: Capture | None) -> list[tuple[Tensor, Tensor]]:
        """Return loss and outputs of each chunk, one forward pass each, without a graph."""
        found = []
        for chunk, size in zip(batch.chunks, batch.sizes, strict=True):
            self._subject.num_passes["forward"] += 1
            watching = capture.capturing(size) if capture is not None else nullcontext()
            with self._meter.part(f"pass over {batch.hash}"), torch.no_grad(), watching:
                loss, outputs = self._subject.loss_and_outputs(self.parameters, chunk)
            found.append((loss, main_tensor(outputs)))
        return found

    def _check_real(self) -> None:
        if any(p.is_complex() for p in self.parameters.values()):
            raise Missing("trainable parameters are complex: per-sample gradients and Hessians are for real ones")

    def _mean_loss(self, parameters: Mapping[str, Tensor], batch: Any) -> Tensor:
        return self._subject.loss_and_outputs(parameters, batch)[0]

    def _labels(self) -> tuple[Tensor | None, int | None]:
        try:
            return self.train.labels()
        except Missing:
            return None, None


def _train_sample_losses(snapshot: ModelSnapshot) -> Tensor:
    snapshot._run_train_pass()
    return sample_losses(snapshot._subject, snapshot._subject.train, snapshot._train_chunks or [])


def _heldout_sample_losses(snapshot: ModelSnapshot) -> Tensor:
    return sample_losses(snapshot._subject, snapshot._heldout_batch(), snapshot._heldout_chunks)


def _evaluation(batch: ProbeBatch, chunks: Sequence[tuple[Tensor, Tensor]]) -> Evaluation:
    loss = sum(share * value.item() for share, (value, _) in zip(batch.shares, chunks, strict=True))
    outputs = _joined([outputs for _, outputs in chunks])
    return Evaluation(float(loss), outputs, batch.targets, batch.num_samples, batch.mask)


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """Return the outputs of all chunks (N, ...), or none (0, ...) of them where chunks differ in shape."""
    fits = all(t.ndim > 0 for t in tensors) and len({t.shape[1:] for t in tensors}) == 1
    return torch.cat(list(tensors)) if fits else tensors[0].new_empty(0)
