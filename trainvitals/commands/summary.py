"""The last value of every metric of a run, as a table grouped by the question it answers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from trainvitals.commands.terminal import cell
from trainvitals.schema import Description, Question, Reading

NUMBERS_SHOWN = 3  # of an array; longer ones are summed up by their range
OWN = "Logged by the training script"

Latest = Mapping[str, tuple[int, Reading]]


@dataclass(frozen=True)
class Line:
    """One metric as the table shows it."""

    question: str
    name: str
    title: str
    step: int
    value: str
    error: str
    state: str  # "", "not converged", "missing: …"
    seconds: float
    hvps: int


def lines(latest: Latest, descriptions: Mapping[str, Description]) -> list[Line]:
    """Return a line a metric, questions in the order of the pages, unknown ones and the user's own at the end."""
    order = {question.value: rank for rank, question in enumerate(Question)}
    found = [_line(name, *latest[name], descriptions.get(name)) for name in latest]
    return sorted(found, key=lambda line: (line.question == OWN, order.get(line.question, len(order)), line.question,
                                           line.name))  # fmt: skip


def _line(name: str, step: int, reading: Reading, words: Description | None) -> Line:
    return Line(
        question=words.question if words else OWN,
        name=name,
        title=words.title if words else "",
        step=step,
        value=numbers(reading.value),
        error=numbers(reading.error),
        state=_state(reading),
        seconds=reading.seconds,
        hvps=reading.hvps,
    )


def _state(reading: Reading) -> str:
    if reading.missing is not None:
        return f"missing: {reading.missing}"
    return "not converged" if reading.converged is False else ""


def numbers(value: Any) -> str:
    """Return a number, a short array, or the range of a long one.

    >>> numbers(0.5), numbers([1.0, 2.0]), numbers([3.0, 1.0, 2.0, 4.0]), numbers(None)
    ('0.5', '1, 2', '1 … 4 (4 numbers)', '')
    """
    if value is None:
        return ""
    found = list(_flat(value))
    if len(found) <= NUMBERS_SHOWN:
        return ", ".join(f"{number:.4g}" for number in found)
    finite = [number for number in found if math.isfinite(number)]
    if not finite:
        return f"none finite ({len(found)} numbers)"
    strange = f", {len(found) - len(finite)} not finite" if len(finite) < len(found) else ""
    return f"{min(finite):.4g} … {max(finite):.4g} ({len(found)} numbers{strange})"


def _flat(value: Any) -> Iterator[float]:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _flat(item)
    else:
        yield float(value)


def table(latest: Latest, descriptions: Mapping[str, Description]) -> Table:
    """Return the table: a heading a question, then metric, value, error, state, step and cost."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("metric", "what it is", "value", "± error", "state", "step", "seconds", "Hv products"):
        shown.add_column(header, justify="right" if header in ("step", "seconds", "Hv products") else "left",
                         overflow="fold")  # fmt: skip
    question = None
    for line in lines(latest, descriptions):
        if line.question != question:
            question = line.question
            shown.add_row(cell(question, "bold"))
        shown.add_row(
            cell(f"  {line.name}"), cell(line.title), cell(line.value), cell(line.error),
            cell(line.state, "yellow"), cell(line.step), cell(f"{line.seconds:.3f}" if line.seconds else ""),
            cell(line.hvps or ""),
        )  # fmt: skip
    return shown
