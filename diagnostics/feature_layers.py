"""Features of the last layer, or of any layers that the reader names: one view of a layer, one option for all.

A diagnostic of features measures one `FeatureView`: rows of features, their labels, and what was worked out of them
already. Without `layers` that is the input of the last linear layer called. `layers` names modules as in
`model.named_modules()`, activations as in `units.dead` ("conv1.relu"), patterns of either ("blocks.*.mlp"), or "last".

What a row is. Where targets are one a sample, a row is a sample: tokens and positions of it are averaged (without
padding, where the batch has an `attention_mask`). Where outputs and targets are one a token, each token with a target
is a row; of more than 1,024, that many are drawn by a fixed seed.

Legend: N samples, T tokens or positions, D features, R rows, L layers.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Classifier, Diagnostic, Evaluation, Missing, Snapshot
from trainvitals.diagnostics.by_layer import in_words
from trainvitals.diagnostics.evaluation import IGNORED, Labelled, drawn
from trainvitals.schema import Reading

T = TypeVar("T")
LAST = "last"  # the name of the last linear layer's input among `layers`
_MAX_ROWS = 1024  # tokens used where they have no labels
_MAX_HINTS = 3


def matches(name: str, pattern: str) -> bool:
    """Tell whether a layer's name, or its name without the number of the call, fits a name or a glob pattern.

    >>> matches("blocks.0.relu#2", "blocks.*.relu"), matches("blocks.0", "blocks.1")
    (True, False)
    """
    return fnmatchcase(name, pattern) or fnmatchcase(name.partition("#")[0], pattern)


def rows_of(features: Tensor, evaluation: Evaluation) -> Tensor:
    """Return features (R, D): one row a sample, or one a token where outputs and targets are one a token.

    Args:
        features: (N, D) or (N, T..., D).
        evaluation: outputs and targets of the same probe.
    """
    grid = features.shape[:-1]
    if is_per_token(grid, evaluation):
        return features.flatten(0, -2)[_places(grid, evaluation)]
    return averaged(features, evaluation.mask)


def is_per_token(grid: Sequence[int], evaluation: Evaluation) -> bool:
    """Tell whether outputs, and targets if there are any, have one entry for each place of a grid (N, T...)."""
    outputs, targets, grid = evaluation.outputs, evaluation.targets, tuple(grid)
    shape = tuple(outputs.shape)
    fits = shape[:-1] == grid or (len(shape) > 2 and shape[:1] + shape[2:] == grid)
    return fits and (targets is None or tuple(targets.shape[: len(grid)]) == grid)


def _places(grid: Sequence[int], evaluation: Evaluation) -> Tensor:
    """Return the places of labelled tokens in the flattened grid, (R,); without labels, those that are no padding."""
    try:
        cases = evaluation.labelled
        if cases.grid == tuple(grid):
            return cases.places
    except Missing:
        pass
    kept = torch.ones(tuple(grid), dtype=torch.bool, device=evaluation.outputs.device)
    targets = evaluation.targets
    if targets is not None and tuple(targets.shape) == tuple(grid) and not targets.is_floating_point():
        kept &= targets.to(kept.device) != IGNORED
    if evaluation.mask is not None and evaluation.mask.shape == kept.shape:
        kept &= evaluation.mask.to(kept.device)
    return drawn(kept.flatten().nonzero().flatten(), _MAX_ROWS)


def averaged(features: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean of features (N, T..., D) over places, (N, D); without padding if the mask (N, T) fits.

    >>> averaged(torch.tensor([[[1.0], [3.0], [99.0]]]), torch.tensor([[True, True, False]])).tolist()
    [[2.0]]
    """
    if features.ndim <= 2:
        return features
    if mask is not None and mask.shape == features.shape[:-1]:
        weights = mask.to(features.device, features.dtype)[..., None]
        return (features * weights).sum(1) / weights.sum(1).clamp(min=1)
    return features.flatten(1, -2).mean(1)


class FeatureView:
    """One layer as a diagnostic of features sees it: rows, their labels, and work that several share.

    Attributes raise `Missing` with the reason, as those of a snapshot do.
    """

    def __init__(self, snapshot: Snapshot, layer: str | None) -> None:
        self._snapshot = snapshot
        self._layer = layer
        self._memory: dict[Callable[..., Any], Any] = {}

    @cached_property
    def features(self) -> Tensor:
        """Rows of the train probe, (R, D)."""
        raw = self._raw
        return raw if raw.ndim <= 2 else rows_of(raw, self._snapshot.train)

    @cached_property
    def heldout_features(self) -> Tensor:
        """Rows of the held-out probe, (M, D)."""
        raw = self._raw_heldout
        return raw if raw.ndim <= 2 else rows_of(raw, self._snapshot.heldout)

    def labels(self) -> tuple[Tensor, int]:
        """Return the labels of the train probe's rows, (R,), and the number of classes."""
        cases = self._cases
        return cases.labels, cases.num_classes

    def heldout_labels(self) -> Tensor:
        """Return the labels of the held-out probe's rows, (M,)."""
        return _cases(self._snapshot.heldout, lambda: self._raw_heldout).labels

    @property
    def num_train(self) -> int:
        """Independent draws behind the train rows (see `num_heldout`)."""
        return self._snapshot.train.num_samples

    @property
    def num_heldout(self) -> int:
        """Independent draws behind the held-out rows: their samples, for tokens of one sample depend on each other."""
        return self._snapshot.heldout.num_samples

    @property
    def outputs(self) -> Tensor:
        """The network's outputs at the labelled rows of the train probe, (R, C)."""
        return self._cases.outputs

    @property
    def classifier(self) -> Classifier:
        """The linear layer that reads these features."""
        if self._layer is not None:
            raise Missing("no classifier reads this layer: only the last one has its weights")
        return self._snapshot.classifier

    def once(self, function: Callable[[Any], T]) -> T:
        """Return `function(self)`, computed at most once a step; a `Missing` that it raised is raised again."""
        if function not in self._memory:
            try:
                self._memory[function] = function(self)
            except Missing as reason:
                self._memory[function] = reason
        found = self._memory[function]
        if isinstance(found, Missing):
            raise found
        return found

    @property
    def _cases(self) -> Labelled:
        return _cases(self._snapshot.train, lambda: self._raw)

    @property
    def _raw(self) -> Tensor:
        return self._snapshot.features if self._layer is None else self._of(self._snapshot.layer_features)

    @property
    def _raw_heldout(self) -> Tensor:
        if self._layer is None:
            return self._snapshot.heldout_features
        return self._of(self._snapshot.heldout_layer_features)

    def _of(self, layers: Mapping[str, Tensor]) -> Tensor:
        if self._layer is None or self._layer not in layers:
            raise Missing("its outputs have no row for each sample, or differ in shape between the probe's batches")
        return layers[self._layer]


def _cases(evaluation: Evaluation, features: Callable[[], Tensor]) -> Labelled:
    cases = evaluation.labelled
    if cases.is_per_token and tuple(features().shape[:-1]) != cases.grid:
        raise Missing(
            f"targets are one a token, of shape {cases.grid}, features of shape {tuple(features().shape)} are not"
        )
    return cases


def _views(snapshot: Snapshot) -> dict[str | None, FeatureView]:
    """Return the views of a step, by layer: filled as they are asked for, for `Snapshot.once`."""
    return {}


def view_of(snapshot: Snapshot, layer: str | None = None) -> FeatureView:
    """Return the view of a layer, of the last one without a name; the same one for all diagnostics of a step."""
    views = snapshot.once(_views)
    if layer not in views:
        views[layer] = FeatureView(snapshot, layer)
    return views[layer]


def chosen(patterns: Sequence[str], names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the layers that patterns name, in the order of the names, and why other patterns name none.

    >>> chosen(["fc*", "conv1"], ["conv", "fc1", "fc2"])
    (['fc1', 'fc2'], {'conv1': 'no layer has this name; near ones are conv, fc1'})
    """
    known = [*names, *([LAST] if LAST in patterns and LAST not in names else [])]
    found = [name for name in known if any(matches(name, pattern) for pattern in patterns)]
    left_out = {}
    for pattern in patterns:
        if not any(matches(name, pattern) for name in known):
            near = get_close_matches(pattern, known, _MAX_HINTS, 0.3) or known[:_MAX_HINTS]
            left_out[pattern] = f"no layer has this name; near ones are {', '.join(near)}"
    return found, left_out


@dataclass
class FeatureDiagnostic(Diagnostic):
    """A diagnostic of features: of the last layer's, or of each of `layers`."""

    layers: str | Sequence[str] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        given = [self.layers] if isinstance(self.layers, str) else self.layers
        is_list = isinstance(given, Sequence) and all(isinstance(name, str) and name for name in given) and given
        if given is not None and not is_list:
            raise ValueError(
                f"expected names of layers or patterns of them, got layers={self.layers!r} in options of "
                f"{self.name!r}; write layers=['conv1', 'blocks.*'], or leave it out for the last layer"
            )
        self._check_options()

    def _check_options(self) -> None:
        """Check the options of one's own; those without any have nothing to check."""

    def captured_layers(self) -> tuple[str, ...]:
        """Return the names and patterns of the layers to keep."""
        return (self.layers,) if isinstance(self.layers, str) else tuple(self.layers or ())

    def measure(self, snapshot: Snapshot) -> Reading | Mapping[str, Reading]:
        """Return the reading of the last layer, of the one layer named, or one number a layer."""
        if self.layers is None:
            return self.of(view_of(snapshot))
        names, left_out = chosen(self.captured_layers(), snapshot.layer_names)
        if names == [self.layers]:
            return self.of(_named(snapshot, names[0]))
        readings: dict[str, Reading | Mapping[str, Reading]] = {}
        for name in names:
            try:
                readings[name] = self.of(_named(snapshot, name))
            except Missing as reason:
                left_out[name] = str(reason)
        if not self.parts:
            return joined({name: r for name, r in readings.items() if isinstance(r, Reading)}, left_out)
        return {
            part: _joined_part({name: r[part] for name, r in readings.items() if isinstance(r, Mapping)}, left_out)
            for part in self.parts
        }

    @abc.abstractmethod
    def of(self, view: FeatureView) -> Reading | Mapping[str, Reading]:
        """Return the reading of one layer, or one per part for a group. Raise `Missing` when undefined."""


def _named(snapshot: Snapshot, name: str) -> FeatureView:
    return view_of(snapshot, None if name == LAST and LAST not in snapshot.layer_names else name)


def _joined_part(readings: Mapping[str, Reading], left_out: Mapping[str, str]) -> Reading:
    try:
        return joined(readings, left_out)
    except Missing as reason:
        return Reading.absent(str(reason))


def joined(readings: Mapping[str, Reading], left_out: Mapping[str, str]) -> Reading:
    """Return readings of layers as one: values (L,) keyed by layer, or by layer and key where each is a vector.

    Errors are kept where every layer has one; details are those of each layer, by layer; `left_out` has layers without
    a value and why.

    Raises:
        Missing: if no layer has a value, with the first reasons.

    >>> joined({"fc1": Reading(1.0), "fc2": Reading.absent("it is dead")}, {}).details
    {'left_out': {'fc2': 'it is dead'}}
    """
    left_out = dict(left_out) | {name: r.missing for name, r in readings.items() if r.missing is not None}
    kept = {name: r for name, r in readings.items() if r.missing is None}
    if not kept:
        raise Missing(in_words(left_out) or "no layer was asked for")
    keys = [f"{name} · {key}" if r.keys else name for name, r in kept.items() for key in (r.keys or ("",))]
    errors = [r.error for r in kept.values()]
    details: dict[str, Any] = {"left_out": left_out} if left_out else {}
    for name, reading in kept.items():
        for detail, number in reading.details.items():
            details.setdefault(detail, {})[name] = number
    return Reading(
        value=_flat([r.value for r in kept.values()]),
        error=_flat(errors) if all(error is not None for error in errors) else None,
        keys=tuple(keys),
        details=details,
    )


def _flat(values: Sequence[Any]) -> Tensor:
    return torch.cat([torch.as_tensor(value, dtype=torch.float64).reshape(-1).cpu() for value in values])
