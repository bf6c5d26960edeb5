"""Results of the curvature benchmark: a JSON file for each question, and one page of all of them."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import report

QUESTIONS = ("top", "tracked", "density", "trace", "memory", "scaling")
PEERS = ("curvlinops-for-pytorch", "hessian-eigenthings", "PyHessian", "scipy", "transformers")


@dataclass(frozen=True)
class Section:
    """The answer to one question."""

    question: str
    title: str
    summary: str
    rows: list[dict[str, Any]]
    notes: Sequence[str]
    raw: Any
    picture: str | None = None  # an SVG drawing

    def markdown(self, about: str) -> str:
        columns = dict.fromkeys(column for row in self.rows for column in row)
        rows = [{column: row.get(column, "") for column in columns} for row in self.rows]
        picture = [f"![{self.title}](curvature_{self.question}.svg)"] if self.picture else []
        return "\n\n".join([f"## {self.title}", self.summary, report.table(rows), *picture, *self.notes, about])


def about(repeats: int) -> str:
    """Return when, where and with what a question was answered."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PEERS)
    return (
        f"{datetime.date.today().isoformat()}; {report.machine()}; {versions}. {repeats} interleaved repeats; "
        "median (smallest–largest). Seconds are of the processor, one thread."
    )


def save(section: Section, repeats: int) -> None:
    """Write a question's results, and the page anew from those of all questions."""
    report.RESULTS.mkdir(exist_ok=True)
    text = section.markdown(about(repeats))
    content = {"markdown": text, "rows": section.rows, "raw": section.raw}
    _path(section.question, "json").write_text(json.dumps(content, indent=1) + "\n")
    if section.picture:
        _path(section.question, "svg").write_text(section.picture)
    found = [_path(question, "json") for question in QUESTIONS]
    sections = [json.loads(path.read_text())["markdown"] for path in found if path.exists()]
    (report.RESULTS / "curvature.md").write_text("\n\n".join(["# Curvature", *sections]) + "\n")


def results(question: str) -> dict[str, Any] | None:
    """Return what was saved of a question."""
    path = _path(question, "json")
    return json.loads(path.read_text()) if path.exists() else None


def _path(question: str, ending: str) -> Any:
    return report.RESULTS / f"curvature_{question}.{ending}"
