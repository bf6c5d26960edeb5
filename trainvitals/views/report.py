"""A run as one HTML file: verdicts, charts, tables, settings, where the numbers come from. Opens offline, prints well.

Everything that comes from the run is escaped; `report_page.py` has the shell with its content security policy.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

import trainvitals
from trainvitals.run import Run
from trainvitals.schema import Description, Question, Status, Verdict
from trainvitals.store.errors import StoreError
from trainvitals.views import charts, facts, health
from trainvitals.views.card import Card, card
from trainvitals.views.leads import LEADS
from trainvitals.views.report_page import data_block, page
from trainvitals.views.run_view import RunView
from trainvitals.views.verdict_words import FOUND, evidence_table, headline, nothing_found, timing, unknown_table
from trainvitals.views.words import clean, clock, duration, steps

MAX_CHART_BYTES = 12_000_000  # of all charts together; what is beyond is named
MAX_EVENTS = 100
MAX_SETTINGS = 400  # lines
TEXT_LENGTH = 2000  # characters

Fact = Callable[[RunView], str]
FACTS: Mapping[Question, Fact] = {
    Question.OVERFITTING: facts.overfitting, Question.SHARPNESS: facts.sharpness, Question.STABILITY: facts.stability,
    Question.GRADIENTS: facts.gradients, Question.REPRESENTATION: facts.representation,
    Question.WEIGHTS: facts.weights,
}  # fmt: skip


def report(run: Run, now: float | None = None) -> str:
    """Return a run as one HTML page that needs nothing else: no network, no other file.

    It holds plotly.js (about 4.5 MB), and at most 12 MB of charts, the first of each question before the
    others; charts that are left out are named.

    Args:
        run: open; live or over.
        now: the moment, in seconds since the epoch, that is written on it; the present one by default.
    """
    view = RunView(run)
    budget = _Budget(MAX_CHART_BYTES)
    questions = [(question, _question(view, question, budget)) for question in Question]
    parts = [
        _head(view, time.time() if now is None else now),
        _contents([question for question, body in questions if body]), _verdicts(view.verdicts),
        *(f'<h2 id="{_anchor(question)}">{_text(question)}</h2>{body}' for question, body in questions if body),
        _rest(view, budget), _latest(view), _costs(view), _settings(view), _events(view), _definitions(view),
        _provenance(view),
    ]  # fmt: skip
    return page(f"{clean(run.name, 80)} · TrainVitals", "\n".join(filter(None, parts)))


def write_report(run: Run, to: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write `report` to a file that only its owner may read, whole or not at all, and return its path.

    Raises:
        StoreError: for a file that is there, unless it may be overwritten.
    """
    path = Path(to)
    if path.exists() and not overwrite:
        raise StoreError(
            f"expected a file that is not there yet, got {str(to)!r} in write_report; give another, or overwrite=True"
        )
    text = report(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(hidden, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(hidden, path)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise
    return path


def _text(text: object, limit: int = TEXT_LENGTH) -> str:
    return escape(clean(text, limit))


def _head(view: RunView, now: float) -> str:
    said = f" · {_text(view.run.message)}" if view.run.message else ""
    step = "" if view.last_step is None else f" · step {steps(view.last_step)}"
    note = f"<p>{_text(view.run.note)}</p>" if view.run.note else ""
    tags = f'<p class="soft">{_text(", ".join(view.run.tags))}</p>' if view.run.tags else ""
    fresh = _text(health.freshness(view.status, view.updated, now))
    name = f"<h1>{_text(view.run.name, 200)}</h1>"
    return f'{name}<p class="soft">{fresh}{step}{said} · as of {clock(now)}</p>{tags}{note}'


# Verdicts ---------------------------------------------------------------------------------------


def _verdicts(verdicts: list[Verdict]) -> str:
    parts = [f'<p class="answer">{_text(headline(verdicts))}</p>']
    parts += [_verdict(verdict) for verdict in verdicts if verdict.state in FOUND]
    healthy, told = nothing_found(verdicts)
    if told:
        parts.append(f"<p>No finding of their own, what they look for is told above: {_text(', '.join(told))}.</p>")
    if healthy:
        parts.append(f'<p><span class="ok">✓</span> Healthy: {_text(", ".join(healthy))}.</p>')
    unknown = unknown_table(verdicts)
    if len(unknown):
        parts.append(f"<h3>Not measured well enough to tell</h3>{_table(unknown)}")
    return "\n".join(parts)


def _verdict(verdict: Verdict) -> str:
    word = "to know" if verdict.is_informational else str(verdict.state)
    advice = "".join(f"<p><b>Try:</b> {_text(a.text)} <span class=\"soft\">({_text(a.source)})</span></p>"
                     for a in verdict.advice)  # fmt: skip
    evidence = _table(evidence_table(verdict)) if verdict.evidence else ""
    return (f'<div class="verdict {verdict.state}"><h3>{_text(verdict.title)}</h3>'
            f'<p class="soft"><span class="state">{word}</span> · {_text(timing(verdict))}</p>'
            f"<p>{_text(verdict.summary)}</p>{advice}{evidence}</div>")  # fmt: skip


# Charts -----------------------------------------------------------------------------------------


class _Budget:
    """How many bytes of charts may still come, and what did not fit."""

    def __init__(self, num_bytes: int) -> None:
        self.num_bytes = num_bytes
        self.left_out: list[str] = []

    def take(self, title: str, num_bytes: int) -> bool:
        """Take what a chart needs, or note that it is left out."""
        if num_bytes > self.num_bytes:
            self.left_out.append(title)
            return False
        self.num_bytes -= num_bytes
        return True


def _question(view: RunView, question: Question, budget: _Budget) -> str:
    """Return the section of a question: its sentence and its charts; empty if nothing was recorded for it."""
    lead = LEADS.get(question)
    items = list(lead(view)) if lead else []
    cards = [item if isinstance(item, Card) else card(view.descriptions[item])
             for item in items if isinstance(item, Card) or item in view.descriptions]  # fmt: skip
    shown = {name for item in cards for name in item.names}
    cards += [card(description) for description in view.metrics(question) if description.name not in shown]
    body = _charts(view, cards, budget)
    sentence = FACTS[question](view) if body and question in FACTS else ""
    return (f"<p>{_text(sentence)}</p>" if sentence else "") + body


def _rest(view: RunView, budget: _Budget) -> str:
    """Return the charts of what belongs to no question, and the names of those that did not fit."""
    body = _charts(view, [card(description) for description in view.unasked()], budget)
    body = f"<h2>Logged by the training script</h2>{body}" if body else ""
    if budget.left_out:
        body += f'<p class="soft">Not drawn here, for the size of this file: {_text(", ".join(budget.left_out))}.</p>'
    return body


def _charts(view: RunView, cards: Iterable[Card], budget: _Budget) -> str:
    found = (_chart(view, item, budget) for item in cards if item.is_recorded(view))
    return "\n".join(filter(None, found))


def _chart(view: RunView, item: Card, budget: _Budget) -> str:
    recorded = [name for name in item.names if name in view.latest]
    head = f"<h3>{_text(item.title)}</h3><figcaption>{_text(item.summary)}</figcaption>"
    if all(view.points(name).empty for name in recorded):
        reasons = {view.latest[name][1].missing for name in recorded} - {None}
        return f'<figure>{head}<p class="soft">Undefined: {_text("; ".join(sorted(map(str, reasons))))}</p></figure>'
    try:
        figure = item.draw(view, item.title)
        if item.over_steps:
            figure = charts.with_onsets(figure, view.onsets, view.span)
        text = _as_json(figure)
    except Exception as error:  # a chart that fails says so in its place, as on the page
        return f'<figure>{head}<p class="soft">This chart cannot be drawn: {_text(error)}</p></figure>'
    if not budget.take(item.title, len(text)):
        return ""
    height = int(json.loads(text)["layout"].get("height", charts.HEIGHT))
    return (f'<figure>{head}<div class="chart" role="img" aria-label="{_text(item.title)}" '
            f'style="height:{height}px"></div>{data_block(text)}</figure>')  # fmt: skip


def _as_json(figure: go.Figure) -> str:
    return str(figure.update_layout(template="none").to_json())


# Tables -----------------------------------------------------------------------------------------


def _table(rows: pd.DataFrame) -> str:
    head = "".join(f'<th scope="col">{_text(column)}</th>' for column in rows.columns)
    lines = ("".join(f"<td>{_text(value)}</td>" for value in row) for row in rows.itertuples(index=False))
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _latest(view: RunView) -> str:
    rows = health.latest_table(view).drop(columns=["Missing"])
    return f"<h2>Latest values</h2>{_table(rows)}" if len(rows) else ""


def _costs(view: RunView) -> str:
    rows = health.cost_table(view)
    return f"<h2>What measuring cost</h2>{_table(rows)}" if len(rows) else ""


def _settings(view: RunView) -> str:
    lines = list(flat(view.run.meta))
    rows = pd.DataFrame(lines[:MAX_SETTINGS], columns=["Setting", "Value"])
    more = f'<p class="soft">{len(lines) - MAX_SETTINGS} more are in the run.</p>' if len(lines) > MAX_SETTINGS else ""
    return f"<h2>Settings</h2>{_table(rows)}{more}" if lines else ""


def flat(value: Any, name: str = "") -> Iterable[tuple[str, str]]:
    """Yield the names and values of nested settings, a line each.

    >>> list(flat({"optimizer": {"lr": 0.1}, "tags": ["a", "b"]}))
    [('optimizer.lr', '0.1'), ('tags', '["a", "b"]')]
    """
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def _events(view: RunView) -> str:
    events = view.events[view.events["message"] != ""].tail(MAX_EVENTS)
    rows = pd.DataFrame({"Step": events["step"], "Time": [clock(t) for t in events["time"]], "Kind": events["kind"],
                         "Message": events["message"]})  # fmt: skip
    return f"<h2>What the run said</h2>{_table(rows)}" if len(rows) else ""


def _definitions(view: RunView) -> str:
    rows = [_definition(d) for name, d in sorted(view.stored.items()) if name in view.latest]
    columns = ["Metric", "What it shows", "Formula (LaTeX)", "Unit", "Undefined", "Source"]
    return f"<h2>Definitions</h2>{_table(pd.DataFrame(rows, columns=columns))}" if rows else ""


def _definition(d: Description) -> tuple[str, ...]:
    unit = "dimensionless" if d.unit == "1" else d.unit
    return (f"{d.title} ({d.name}, version {d.version})", d.summary, d.formula, unit, d.undefined, d.source)


def _provenance(view: RunView) -> str:
    run = view.run
    lasted = duration((view.updated or run.started) - run.started) if run.started else "–"
    rows = [
        ("Run", run.id), ("Started", clock(run.started) if run.started else "–"), ("Status", str(view.status)),
        ("Recorded for" if view.status != Status.LIVE else "Running for", lasted),
        ("Points", f"{run.num_points:,}"), ("Points that could not be saved", f"{run.num_dropped:,}"),
        ("Written by", f"TrainVitals {trainvitals.__version__}"),
    ]  # fmt: skip
    return f'<h2>Where this comes from</h2>{_table(pd.DataFrame(rows, columns=["What", "Value"]))}'


def _contents(questions: list[Question]) -> str:
    return "<nav>" + " ".join(f'<a href="#{_anchor(q)}">{_text(q)}</a>' for q in questions) + "</nav>"


def _anchor(question: Question) -> str:
    return "".join(c if c.isalnum() else "-" for c in str(question).lower()).strip("-")
