"""The diagnostic: what it declares, how it is made from options, and what it may read.

A diagnostic is a dataclass in a file of this folder. Class attributes describe it (they become its
card, its chart and its line in the catalogue), fields are its options, and `measure` turns a
`Snapshot` into a `Reading`. Needs are declared, so that everything due at a step shares one forward
pass, one set of per-sample gradients and one double-backward graph.

A diagnostic that keeps state between measurements (the best loss so far) holds it in fields with
`init=False`; one instance lives as long as its run.
"""

from __future__ import annotations

import abc
import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Flag, StrEnum, auto
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor

from trainvitals.diagnostics.evaluation import Evaluation as Evaluation
from trainvitals.diagnostics.missing import Missing as Missing
from trainvitals.schema import Chart, Description, Question, Reading, ReferenceLine, Scale

if TYPE_CHECKING:
    from trainvitals.diagnostics.attention_sums import AttentionSums
    from trainvitals.diagnostics.batch_loss import BatchLoss
    from trainvitals.diagnostics.gradient_gram import GradientGram
    from trainvitals.diagnostics.gradient_sums import GradientSums
    from trainvitals.diagnostics.input_loss import InputLoss
    from trainvitals.diagnostics.linalg.hvp import HessianOperator
    from trainvitals.diagnostics.linalg.products import Products
    from trainvitals.diagnostics.signal_sums import BranchSums, SignalSums

T = TypeVar("T")


class Needs(Flag):
    """What a diagnostic reads. The needs of all that is due at a step are merged and produced once."""

    NOTHING = 0
    PARAMETERS = auto()  # weights now and at the start of the run
    OPTIMIZER_STATE = auto()  # hyperparameters and moment estimates
    TRAJECTORY = auto()  # gradients and updates of the last two training steps
    OUTPUTS = auto()  # loss and outputs on the train probe: one forward pass
    HELDOUT = auto()  # the same on the held-out probe
    ACTIVATIONS = auto()  # outputs of non-linearities and of linear layers, from the same forward pass
    FEATURES = auto()  # inputs of the classifier and its weights, from the same forward pass
    GRADIENT = auto()  # gradient of the mean loss of the train probe
    PER_SAMPLE_GRADIENTS = auto()  # one gradient a sample, folded into sums
    HVP = auto()  # Hessian-vector products on one shared double-backward graph
    GRADIENT_GRAM = auto()  # inner products of the gradients of up to 128 samples, from the same passes
    HELDOUT_FEATURES = auto()  # inputs of the classifier on the held-out probe, from its forward pass
    SIGNALS = auto()  # sums of squares of blocks' outputs and of residual branches, from the train probe's pass
    ATTENTION = auto()  # sums over the rows of attention, by layer and head, from the train probe's forward pass


class Tier(StrEnum):
    """The smallest preset that holds the diagnostic: each preset holds the ones before it.

    What is on request is in none of them, for its price: only its own name, or its group's, asks for it. Those
    that are dear (`Diagnostic.is_dear`) are paced by a budget where a preset brings them, unless it is turned off.
    """

    LIGHT = "light"
    DEFAULT = "default"
    FULL = "full"
    ON_REQUEST = "on request"


@dataclass(frozen=True)
class Part:
    """One named number of a group: `gap` has the parts `loss` and `accuracy`. None: as the group has it."""

    title: str
    summary: str | None = None
    unit: str | None = None
    formula: str | None = None
    chart: Chart | None = None
    scale: Scale | None = None
    references: tuple[ReferenceLine, ...] | None = None


@dataclass(frozen=True)
class Classifier:
    """The last linear layer, h ↦ W h + b, by the name of its module."""

    name: str
    weight: Tensor  # (C, D)
    bias: Tensor | None  # (C,)


@dataclass(frozen=True)
class Trajectory:
    """What the last two training steps did; by parameter name. `previous_*` is the step before."""

    gradient: Mapping[str, Tensor]
    update: Mapping[str, Tensor]  # θ(t) − θ(t−1)
    previous_gradient: Mapping[str, Tensor] | None
    previous_update: Mapping[str, Tensor] | None


@dataclass(frozen=True)
class ParameterGroup:
    """One parameter group of the optimiser: its hyperparameters, and the parameters by name."""

    options: Mapping[str, Any]  # "lr", "momentum", "betas"…
    names: tuple[str, ...]


@dataclass(frozen=True)
class OptimizerView:
    """The optimiser as it stands: its class's name, its groups, its state by parameter name (aliases)."""

    kind: str  # "SGD", "Adam", "AdamW"…; with its module if it is not torch's
    groups: tuple[ParameterGroup, ...]
    state: Mapping[str, Mapping[str, Any]]  # "layer.weight" -> {"step": …, "exp_avg_sq": …}


class Snapshot(Protocol):
    """One step as diagnostics see it. Each attribute is produced on first use and only once.

    Attributes raise `Missing` with the reason when they do not exist for this model or this moment
    (no held-out probe, no linear classifier, no optimiser). Tensors are detached and must not be
    written to. N samples, C classes, D features, P trainable parameters.
    """

    step: int
    mode: str  # "eval" or "train": BatchNorm and dropout in probe passes

    @property
    def num_samples(self) -> int: ...
    @property
    def train(self) -> Evaluation: ...
    @property
    def heldout(self) -> Evaluation: ...
    @property
    def heldout_sets(self) -> Mapping[str, Evaluation]: ...  # by the user's names; `heldout` is one of them
    @property
    def parameters(self) -> Mapping[str, Tensor]: ...  # trainable ones, tied ones once
    @property
    def norm_parameters(self) -> frozenset[str]: ...  # names of those that belong to normalisation layers
    @property
    def initial_parameters(self) -> Mapping[str, Tensor]: ...  # at the start of the run
    @property
    def trajectory(self) -> Trajectory: ...
    @property
    def optimizer(self) -> OptimizerView: ...
    @property
    def activations(self) -> Mapping[str, Tensor]: ...  # (N, ...) after each non-linearity
    @property
    def unit_axes(self) -> Mapping[str, int]: ...  # of each activation: the dimension that counts its units
    @property
    def attention(self) -> Mapping[str, AttentionSums]: ...  # of each attention layer; empty where none was seen
    @property
    def signals(self) -> Mapping[str, SignalSums]: ...  # of each block's output
    @property
    def branches(self) -> Mapping[str, BranchSums]: ...  # of each residual addition; empty where none was seen
    @property
    def layer_outputs(self) -> Mapping[str, Tensor]: ...  # (N, ...) of each Linear and Conv
    @property
    def unit_utilities(self) -> Mapping[str, Tensor | None]: ...  # (d,) of each activation; a pass of its own
    @property
    def features(self) -> Tensor: ...  # (N, D) inputs of the classifier
    @property
    def heldout_features(self) -> Tensor: ...  # (M, D) the same on the held-out probe
    @property
    def layer_names(self) -> Sequence[str]: ...  # modules and activations that a `layers` option can name
    @property
    def layer_features(self) -> Mapping[str, Tensor]: ...  # (N, ..., D) of those that `layers` options do name
    @property
    def heldout_layer_features(self) -> Mapping[str, Tensor]: ...  # (M, ..., D) the same on the held-out probe
    @property
    def classifier(self) -> Classifier: ...
    @property
    def sample_losses(self) -> Tensor: ...  # (N,) loss of each sample of the train probe
    @property
    def heldout_sample_losses(self) -> Tensor: ...  # (M,) the same of the held-out probe
    @property
    def gradient(self) -> Mapping[str, Tensor]: ...  # of the mean loss on the train probe
    @property
    def gradient_sums(self) -> GradientSums: ...  # per-sample gradients, folded
    @property
    def gradient_gram(self) -> GradientGram: ...  # and inner products of some of them
    @property
    def hessian(self) -> HessianOperator: ...  # of the mean loss on the train probe
    @property
    def products(self) -> Products: ...  # how operators on the probe's batches are to multiply

    def batch_losses(self, size: int | None = None) -> Sequence[BatchLoss]:
        """Return the loss on the train probe's batches as functions of the parameters.

        The batches are the probe's own, or mini-batches of exactly `size` samples, drawn without replacement.
        Functions may be called while the measurement lasts.
        """
        ...

    def losses_of(self, rows: Sequence[int]) -> Sequence[BatchLoss]:
        """Return the mean loss on these samples of the train probe alone, in pieces; their shares add up to 1.

        Functions may be called while the measurement lasts.
        """
        ...

    def input_losses(self, *, heldout: bool = False) -> Sequence[InputLoss]:
        """Return the loss on the batches of the train, or the held-out, probe as functions of the inputs.

        Functions may be called while the measurement lasts.
        """
        ...

    def once(self, function: Callable[[Any], T]) -> T:
        """Return `function(self)`, computed at most once a step: work that several diagnostics share."""
        ...

    def due(self, name: str) -> Any | None:
        """Return the diagnostic of that name if it is measured at this step too, else None."""
        ...

    def generator(self, purpose: str) -> torch.Generator:
        """Return a generator on the CPU, seeded by the run's seed and the purpose, never by global state."""
        ...

    def progress(self, name: str, done: int, total: int) -> None:
        """Tell who waits how far a long measurement has come."""
        ...

    def isolated_model(self) -> tuple[torch.nn.Module, Callable[..., Tensor] | None, list[tuple[Any, Any, float]]]:
        """Return a deep copy of the model, the loss, and (inputs, targets, share of samples) per batch."""
        ...


class Diagnostic(abc.ABC):
    """What one metric, or one group of metrics, is and how it is measured.

    Subclass it once: a diagnostic is abstract or final. Every class attribute without a value here
    must be given.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    question: ClassVar[Question]
    summary: ClassVar[str]
    formula: ClassVar[str]  # LaTeX
    undefined: ClassVar[str]
    source: ClassVar[str]
    needs: ClassVar[Needs]
    tier: ClassVar[Tier]
    interval: ClassVar[int]  # steps between measurements when `every` says nothing of it
    version: ClassVar[int] = 1
    group: ClassVar[str | None] = None  # a name that stands for several diagnostics, as "nc" does
    unit: ClassVar[str] = "1"
    chart: ClassVar[Chart] = Chart.LINE
    scale: ClassVar[Scale] = Scale.LINEAR
    keys: ClassVar[str] = ""
    references: ClassVar[tuple[ReferenceLine, ...]] = ()
    passes: ClassVar[str] = ""  # its cost in words, where passes of its own are dearer than what it needs
    is_slow: ClassVar[bool] = False  # where it takes passes, or time, of its own that its needs do not tell
    parts: ClassVar[Mapping[str, Part]] = {}

    @abc.abstractmethod
    def measure(self, snapshot: Snapshot) -> Reading | Mapping[str, Reading]:
        """Return the reading, or one reading per part for a group. Raise `Missing` when undefined."""

    def captured_layers(self) -> tuple[str, ...]:
        """Return names and patterns of layers whose features to keep in the shared forward pass; none unless asked."""
        return ()

    @classmethod
    def descriptions(cls) -> dict[str, Description]:
        """Return the description of every metric that `measure` gives, by its full name."""
        whole = Description(
            name=cls.name, title=cls.title, question=cls.question, summary=cls.summary, formula=cls.formula,
            unit=cls.unit, undefined=cls.undefined, source=cls.source, chart=cls.chart, scale=cls.scale,
            keys=cls.keys, version=cls.version, cost=cls.cost(), references=cls.references,
        )  # fmt: skip
        if not cls.parts:
            return {cls.name: whole}
        return {
            f"{cls.name}.{part}": dataclasses.replace(
                whole, name=f"{cls.name}.{part}",
                **{key: value for key, value in vars(words).items() if value is not None},
            )
            for part, words in cls.parts.items()
        }  # fmt: skip

    @classmethod
    def cost(cls) -> str:
        """Return in words the dearest thing that the diagnostic needs."""
        if cls.passes:
            return cls.passes
        for need, words in _COSTS.items():
            if need & cls.needs:
                return words
        return "no pass over the data"

    @classmethod
    def is_dear(cls) -> bool:
        """Tell whether it costs more than a small part of one shared forward and one shared backward pass."""
        return cls.is_slow or bool(cls.needs & _DEAR)

    @classmethod
    def option_names(cls) -> list[str]:
        """Return the names of the options that the diagnostic takes."""
        if not dataclasses.is_dataclass(cls):
            return []
        return [f.name for f in dataclasses.fields(cls) if f.init]

    @classmethod
    def configured(cls, options: Mapping[str, Any]) -> Diagnostic:
        """Return an instance with these options.

        Raises:
            ValueError: if an option is not one of the diagnostic's, with near names.
        """
        known = cls.option_names()
        for option in options:
            if option not in known:
                near = get_close_matches(option, known, 3, 0.4)
                hint = f"did you mean {' or '.join(near)}?" if near else "leave it out"
                raise ValueError(
                    f"expected options of {cls.name!r} among {known or 'none'}, got {option!r} "
                    f"in options={{{cls.name!r}: ...}}; {hint}"
                )
        return cls(**options)


_DEAR = Needs.HVP | Needs.PER_SAMPLE_GRADIENTS | Needs.GRADIENT_GRAM
_COSTS = {
    Needs.HVP: "Hessian-vector products",
    Needs.PER_SAMPLE_GRADIENTS: "one gradient per sample",
    Needs.GRADIENT: "one backward pass",
    Needs.ACTIVATIONS | Needs.FEATURES | Needs.OUTPUTS | Needs.HELDOUT: "one shared forward pass",
    Needs.HELDOUT_FEATURES | Needs.ATTENTION | Needs.SIGNALS: "one shared forward pass",
    Needs.TRAJECTORY: "copies of weights and gradients",
}


def or_missing(produce: Callable[[], Reading]) -> Reading:
    """Return what `produce` gives, or the reading of its reason: one part of a group may be undefined alone."""
    try:
        return produce()
    except Missing as reason:
        return Reading.absent(str(reason))


def is_final(cls: type[Diagnostic]) -> bool:
    """Tell a diagnostic that can be measured from an abstract base."""
    return not inspect.isabstract(cls) and hasattr(cls, "name")
