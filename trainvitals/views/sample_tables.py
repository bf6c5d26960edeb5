"""Tables of the samples that matter most: the place in the probe, the input, the labels, and the numbers.

N samples of the train probe.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trainvitals.schema import Reading
from trainvitals.views.pictures import picture
from trainvitals.views.run_view import RunView
from trainvitals.views.words import clean

INPUTS, PREDICTED, LOSS, MARGIN = "samples.inputs", "samples.predicted", "samples.loss", "samples.aum"
EL2N, GRAND, EVENTS, MEMORISED = "el2n", "grand", "forgetting.events", "memorised.samples"
COLUMNS = {LOSS: "Loss", EL2N: "EL2N", GRAND: "Gradient norm", MARGIN: "Mean margin", EVENTS: "Forgotten"}
USED = (INPUTS, PREDICTED, *COLUMNS, MEMORISED)
NUM_ROWS = 8


@dataclass(frozen=True)
class Ranking:
    """One table: which metric it is sorted by, from which end, and which samples belong in it at all."""

    title: str
    summary: str
    name: str
    is_smallest: bool = False
    least: float | None = None  # a sample below it does not belong


RANKINGS = (
    Ranking("Suspected wrong labels", "Lowest mean margin over the run: the label is at odds with what the network "
            "learns from the others.", MARGIN, is_smallest=True),
    Ranking("Hardest now", "Largest loss at the last measurement.", LOSS),
    Ranking("Largest error norm", "Largest EL2N at the last measurement.", EL2N),
    Ranking("Most often forgotten", "Went from right to wrong most often.", EVENTS, least=1.0),
    Ranking("Strongest pull on the weights", "Largest gradient of its own loss (GraNd).", GRAND),
    Ranking("Memorised in one jump", "From chance to certain between two measurements, and certain since.", MEMORISED,
            least=1.0),
)  # fmt: skip


def ranked(view: RunView, ranking: Ranking) -> pd.DataFrame:
    """Return the rows of one table, what matters most first; empty where nothing was measured or belongs in it.

    Columns: Sample (its place in the train probe), Input where it was kept, Label and Predicted where they are
    known, and a number for each metric of samples that was recorded.
    """
    values = _by_sample(view, ranking.name)
    if values is None:
        return pd.DataFrame()
    order = np.argsort(values if ranking.is_smallest else -values, kind="stable")
    belongs = np.isfinite(values) if ranking.least is None else values >= ranking.least
    places = [int(i) for i in order if belongs[i]][:NUM_ROWS]
    return table(view, places) if places else pd.DataFrame()


def table(view: RunView, places: list[int]) -> pd.DataFrame:
    """Return a row for each of these places in the train probe."""
    columns: dict[str, list[Any]] = {"Sample": places}
    kept = _kept(view)
    if kept is not None:
        columns["Input"] = [_shown(kept, i) for i in places]
        if (labels := kept.details.get("labels")) is not None:
            columns["Label"] = [int(labels[i]) if i < len(labels) else None for i in places]
    predicted = _by_sample(view, PREDICTED)
    if predicted is not None:
        columns["Predicted"] = [_at(predicted, i, int) for i in places]
    for name, title in COLUMNS.items():
        values = _by_sample(view, name)
        if values is not None:
            columns[title] = [_at(values, i, float) for i in places]
    return pd.DataFrame(columns)


def are_pictures(view: RunView) -> bool:
    """Whether the run kept its samples as pictures."""
    kept = _kept(view)
    return kept is not None and kept.details.get("kind") == "image"


def _at(values: NDArray, place: int, kind: type) -> Any:
    return kind(values[place]) if place < len(values) and np.isfinite(values[place]) else None


def _by_sample(view: RunView, name: str) -> NDArray | None:
    found = view.latest.get(name)
    if found is None or found[1].value is None:
        return None
    values = np.asarray(found[1].value, np.float64)
    return values if values.ndim == 1 and len(values) else None


def _kept(view: RunView) -> Reading | None:
    """Return what was kept of the samples, if it is what it says: a run file may hold anything."""
    found = view.latest.get(INPUTS)
    if found is None or np.ndim(found[1].value) != 2:
        return None
    reading = found[1]
    kind = reading.details.get("kind")
    if kind != "image":
        return reading if kind == "tokens" else None
    shape, value = _shape(reading.details), np.asarray(reading.value)
    return reading if shape is not None and value.shape[1] == np.prod(shape) and value.dtype == np.uint8 else None


def _shape(details: Mapping[str, Any]) -> tuple[int, int, int] | None:
    sides = [details.get(name) for name in ("height", "width", "channels")]
    if not all(isinstance(side, int | float) and 1 <= side <= 4096 for side in sides):
        return None
    height, width, channels = (int(side) for side in sides if side is not None)
    return (height, width, channels) if channels in (1, 3) else None


def _shown(kept: Reading, place: int) -> str | None:
    """Return a sample's picture as an address, or its tokens as text, None if it was not kept."""
    if place >= len(kept.value):
        return None
    row = np.asarray(kept.value[place])
    shape = _shape(kept.details)
    if kept.details.get("kind") == "image" and shape is not None:
        return picture(row.reshape(shape))
    return clean(json.dumps([int(token) for token in row]), 400)
