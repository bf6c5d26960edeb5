"""What is probed: the user's model and how its loss is computed on the probe batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from trainvitals.diagnostics.base import OptimizerView
from trainvitals.diagnostics.linalg.products import Products
from trainvitals.probes.bystander import bystander, seed_random_state, unwrapped
from trainvitals.probes.heldout_sets import main_set, named_sets
from trainvitals.probes.loss_terms import weighed
from trainvitals.probes.notices import other_device
from trainvitals.probes.probe_batch import ProbeBatch, probe_batch

if TYPE_CHECKING:
    from trainvitals.probes.crew_leader import CrewLeader

_HALF = (torch.bfloat16, torch.float16)
_SAME_LOSS = 1e-5  # relative difference of two passes that passes for rounding in float32
PROBE_SAMPLES = 512  # drawn from a loader when the user does not say: 2 % standard error of an accuracy of 0.7


@dataclass(frozen=True)
class Pass:
    """What one pass over a batch gives."""

    outputs: Any
    loss: Tensor  # the mean over the batch, or from `forward` one number a sample (n,)
    num_terms: Any = None  # that the loss is a mean over, if `forward` says so


def _as_pass(returned: Any) -> Pass:
    if not isinstance(returned, (tuple, list)) or len(returned) not in (2, 3):
        got = f"{len(returned)} values" if isinstance(returned, (tuple, list)) else type(returned).__name__
        raise ValueError(
            f"expected (outputs, loss) or (outputs, mean loss, number of loss terms) from forward=, got {got}"
        )
    return Pass(*returned)


Forward = Callable[[nn.Module, Any], tuple[Any, Tensor] | tuple[Any, Tensor, Any]]


@dataclass
class Subject:
    """The model under the probe, and how its loss is computed. Everything is the user's own object."""

    model: nn.Module  # unwrapped
    loss: Callable[[Any, Any], Tensor] | None
    forward: Forward | None
    train: ProbeBatch
    heldout: ProbeBatch | None = None
    optimizer: Optimizer | None = None
    mode: str = "eval"
    seed: int = 0
    initial_parameters: Mapping[str, Tensor] | None = None
    default_device: torch.device | None = None  # the user's, while the diagnostics work on the CPU's
    products: Products = field(default_factory=Products)  # how Hessian products are made, and what came of it
    heldout_sets: Mapping[str, ProbeBatch] = field(default_factory=dict)  # by name; `heldout` is one of them
    num_passes: dict[str, int] = field(default_factory=lambda: {"forward": 0, "backward": 0})
    notices: list[str] = field(default_factory=list)  # what is odd about what was given, and not wrong
    is_lent: bool = True  # whether passes may run: nothing that is due needs one otherwise, and the bystander is away
    crew: CrewLeader | None = None  # other ranks that help, while all of them measure
    optimizer_seen: OptimizerView | None = None  # beside training, where the optimiser itself is not

    def loss_and_outputs(self, parameters: Mapping[str, Tensor], batch: Any) -> tuple[Tensor, Any]:
        """Return the mean loss of a batch and the outputs, at given parameters, inside the bystander."""
        loss, outputs = self.raw_loss_and_outputs(parameters, batch)
        return loss.mean(), outputs

    def raw_loss_and_outputs(self, parameters: Mapping[str, Tensor], batch: Any) -> tuple[Tensor, Any]:
        """Return the loss as the user's function gives it, and the outputs (see `run`)."""
        found = self.run(parameters, batch)
        return found.loss, found.outputs

    def run(self, parameters: Mapping[str, Tensor], batch: Any) -> Pass:
        """Return the outputs and the loss as the user's functions give them, inside the bystander.

        Inputs are copies (a forward pass may write to them), in float32 for bf16 and fp16 models.
        What draws random numbers does so from the run's own seed, so that every pass of a measurement sees one
        mask. In train mode every pass begins with the same buffers: spectral norm moves its vectors on.

        Raises:
            RuntimeError: if nothing that is measured at this step has said that it needs a pass.
        """
        self.check_lent()
        batch = tree_map(_as_probe_input, batch)
        values = dict(parameters)
        if self.mode == "train":
            values |= {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        seed_random_state(self.seed)
        with self.default_device or nullcontext():
            if self.forward is not None:
                return _as_pass(self.forward(_Called(self.model, values), batch))
            outputs = functional_call(self.model, values, (batch[0],))
            return Pass(outputs, self.loss(outputs, batch[1]))  # pyright: ignore[reportOptionalCall]

    def check_lent(self) -> None:
        """Refuse passes that no `needs` has announced: the model is in the trainer's hands.

        Raises:
            RuntimeError: if the model is not lent.
        """
        if not self.is_lent:
            raise RuntimeError(
                "expected what a diagnostic reads to stand in its needs, got a pass through the model that no "
                "diagnostic of this step has declared; add OUTPUTS, or what it reads, to its needs"
            )

    def parameters(self) -> dict[str, Tensor]:
        """Return copies of trainable parameters by name, tied ones once, in float32 for half precision.

        Copies, for a forward pass may write to its weights: `nn.Embedding(max_norm=...)` does. Aliases where no
        pass may run.
        """
        given = _copied if self.is_lent else float32_if_half
        return {name: given(p) for name, p in self.model.named_parameters() if p.requires_grad}

    @property
    def dtype(self) -> str:
        """The dtype of the first trainable parameter, as probe passes hold it, in words."""
        found = next(p.dtype for p in self.model.parameters() if p.requires_grad)
        return "float32" if found in _HALF else str(found).removeprefix("torch.")

    def weights_at_start(self) -> dict[str, Tensor]:
        """Return copies of what is or may be trained: frozen layers that the optimiser holds may thaw later."""
        groups = self.optimizer.param_groups if self.optimizer is not None else []
        held = {p for group in groups for p in group["params"]}
        return {name: _copied(p) for name, p in self.model.named_parameters() if p.requires_grad or p in held}

    @property
    def beside(self) -> tuple[Any, ...]:
        """What probe passes call besides the model."""
        return tuple(part for part in (self.loss, self.forward) if part is not None)


class _Called(nn.Module):
    """The model as `forward=` sees it: calls go through with the probe's parameters, the rest is the model's."""

    def __init__(self, model: nn.Module, parameters: Mapping[str, Tensor]) -> None:
        super().__init__()
        object.__setattr__(self, "_subject", model)
        object.__setattr__(self, "_values", dict(parameters))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return functional_call(self._subject, self._values, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_subject"), name)


def float32_if_half(tensor: Tensor) -> Tensor:
    """Return a detached alias, or a float32 copy of bf16 and fp16."""
    return tensor.detach().float() if tensor.dtype in _HALF else tensor.detach()


def _copied(parameter: Tensor) -> Tensor:
    return parameter.detach().float() if parameter.dtype in _HALF else parameter.detach().clone()


def _as_probe_input(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    return leaf.float() if leaf.dtype in _HALF else leaf.clone()


def make_subject(
    model: nn.Module,
    *,
    loss: Callable[[Any, Any], Tensor] | None,
    forward: Forward | None,
    train: Any,
    heldout: Any = None,
    optimizer: Optimizer | None = None,
    mode: str = "eval",
    seed: int = 0,
    probe_samples: int = PROBE_SAMPLES,
    call: str,
) -> Subject:
    """Check what the user gave and return it as a subject. `call` names the public call in errors.

    Raises:
        ValueError: if the model has nothing to train, neither or both of loss and forward are given, a
            batch does not fit the model, the loss is neither a scalar nor (from `forward`) one number a sample,
            it differs between two passes over one batch, or its batches cannot be weighted (see `loss_terms`).
    """
    model = unwrapped(model)
    _check_model(model, call)
    _check_number("seed", seed, 0, 2**63 - 1, call)
    _check_number("probe_samples", probe_samples, 1, 2**63 - 1, call)
    if (loss is None) == (forward is None):
        raise ValueError(
            f"expected one of loss= and forward=, got {'neither' if loss is None else 'both'} in {call}; loss= for "
            "models called as model(x), forward=function(model, batch) -> (outputs, loss) for all others"
        )
    if train is None:
        raise ValueError(f"expected a train batch, got None in {call}; pass (inputs, targets) or the training loader")
    device = next(p.device for p in model.parameters() if p.requires_grad)

    def drawn(source: Any, argument: str) -> ProbeBatch:
        batch = probe_batch(source, argument=argument, has_forward=forward is not None, max_samples=probe_samples)
        return batch.on(device)

    def checked(batch: ProbeBatch, argument: str) -> ProbeBatch:
        _check_fit(subject, batch, argument, call)
        return weighed(subject, batch, argument, call)

    subject = Subject(model, loss, forward, drawn(train, "train"), None, optimizer, mode, seed)
    sources = named_sets(heldout, subject.train.chunks[0])
    words = {name: "heldout" if len(sources) == 1 else f"heldout[{name!r}]" for name in sources}
    given = {"train": train} | {words[name]: source for name, source in sources.items()}
    subject.notices += [message for message in [other_device(given, device, call)] if message is not None]
    sets = {name: drawn(source, words[name]) for name, source in sources.items()}
    subject.train = checked(subject.train, "train")
    subject.heldout_sets = {name: checked(batch, words[name]) for name, batch in sets.items()}
    main = main_set(subject.heldout_sets)
    subject.heldout = None if main is None else subject.heldout_sets[main]
    return subject


def _check_model(model: nn.Module, call: str) -> None:
    if not isinstance(model, nn.Module):
        raise ValueError(f"expected a torch.nn.Module, got {type(model).__name__} in {call}; pass the model itself")
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ValueError(
                f"expected initialised parameters, got the lazy parameter {name!r} in {call}; "
                "run the model once on a batch before this call"
            )
        if parameter.is_meta:
            raise ValueError(
                f"expected a model with weights, got {name!r} on the meta device in {call}; move it with to_empty() "
                "and load or initialise its weights first"
            )
    if not any(p.requires_grad and p.numel() for p in model.parameters()):
        raise ValueError(
            f"expected a model with trainable parameters, got none with requires_grad=True in {call}; "
            "was everything frozen?"
        )


def _check_number(name: str, value: Any, low: int, high: int, call: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(
            f"expected a whole number of at least {low}, got {value!r} in {name}= of {call}; "
            "leave it out for the default"
        )


def _check_fit(subject: Subject, batch: ProbeBatch, argument: str, call: str) -> None:
    """Run each form of chunk twice: what does not fit is the user's to know now, not a gap in a chart."""
    forms = {describe_batch(chunk): index for index, chunk in reversed(list(enumerate(batch.chunks)))}
    for form, index in reversed(forms.items()):
        with bystander(subject.model, mode=subject.mode, beside=subject.beside), torch.no_grad():
            parameters = subject.parameters()
            try:
                losses = [subject.run(parameters, batch.chunks[index]).loss for _ in range(2)]
            except Exception as error:
                raise ValueError(
                    f"expected a {argument} batch that the model and the loss take, got {type(error).__name__}: "
                    f"{error} in {call} with {form}; check shapes, dtypes and the order (inputs, targets)"
                ) from error
        for loss in losses:
            _check_loss(loss, batch.sizes[index], subject.forward is not None, call)
        _check_same(float(losses[0].mean()), float(losses[1].mean()), f"{call} with {form}")


def _check_same(first: float, second: float, where: str) -> None:
    """Refuse a loss that is no function of weights and batch: its curvature is no number either."""
    if math.isnan(first) and math.isnan(second):
        return
    if not math.isclose(first, second, rel_tol=_SAME_LOSS, abs_tol=1e-7):
        raise ValueError(
            f"expected the same loss from the same batch and weights, got {first:.6g} and then {second:.6g} "
            f"in {where}; usual causes: random numbers from NumPy, `random` or a generator of the model's own "
            "(torch's global one is seeded for every pass), augmentation inside the forward pass, state that a pass "
            "leaves behind (a counter, a cache, hidden states), kernels that add in no fixed order: "
            "take them out of the probe's passes"
        )


def _check_loss(loss: Any, size: int, may_be_per_sample: bool, call: str) -> None:
    is_real = isinstance(loss, Tensor) and loss.is_floating_point()
    if not (is_real and (loss.numel() == 1 or (may_be_per_sample and tuple(loss.shape) == (size,)))):
        dtype = str(loss.dtype).removeprefix("torch.") if isinstance(loss, Tensor) else ""
        got = f"{dtype} of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(
            f"expected a loss that is one number, a floating-point mean over the batch, got {got} in {call}; "
            "use reduction='mean', or return per-sample losses from forward="
        )


def describe_batch(batch: Any) -> str:
    """Return shapes and dtypes of a batch in words, for error messages."""

    def words(leaf: Any) -> str:
        is_tensor = isinstance(leaf, Tensor)
        return f"{str(leaf.dtype).removeprefix('torch.')}{list(leaf.shape)}" if is_tensor else type(leaf).__name__

    return str(tree_map(words, batch)).replace("'", "")
