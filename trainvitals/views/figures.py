"""Figures of a run by name: a metric, a group, or a question's page, drawn as the dashboard draws them."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

import plotly.graph_objects as go

from trainvitals.run import Run, UnknownMetricError
from trainvitals.schema import Question
from trainvitals.views import charts
from trainvitals.views.card import Card, card
from trainvitals.views.leads import LEADS
from trainvitals.views.run_view import RunView
from trainvitals.views.stacked import stacked, titled

PAGES = {question.name.lower(): question for question in Question}
MAX_CHARTS = 24  # of one figure
_RAW = ("samples.inputs",)  # what a page shows in tables


def figure(run: Run, what: str, start: int | None = None, stop: int | None = None) -> go.Figure:
    """Return the chart of a metric, or the charts of a group or a page one below the other.

    Args:
        run: a recorded run.
        what: a metric's name; a page: "overfitting", "sharpness", "gradients", "stability", "representation",
            "weights", "samples", or its question; or the first part of several names, as "hessian" or "nc".
        start: first step, or None.
        stop: step before which to stop, or None.

    Raises:
        UnknownMetricError: if it is none of these, with near names; or if the run has nothing to draw for it.
    """
    view = RunView(run, window=(start, None if stop is None else stop - 1))
    cards = _cards(view, what)
    drawn = [item for item in cards if any(not view.points(name).empty for name in item.names if name in view.latest)]
    if not drawn:
        raise UnknownMetricError(f"expected a metric with a value, got {what!r} in Run.figure; {_why(view, cards)}")
    made = [(item.title, _drawn(view, item)) for item in drawn[:MAX_CHARTS]]
    if len(made) == 1:
        return titled(*made[0])
    left = len(drawn) - len(made)
    if left:
        made[-1] = f"{made[-1][0]} ({left} more are left out: ask for them by name)", made[-1][1]
    return stacked(made)


def _drawn(view: RunView, item: Card) -> go.Figure:
    figure = item.draw(view, "")
    return charts.with_onsets(figure, view.onsets, view.span) if item.over_steps else figure


def _cards(view: RunView, what: str) -> list[Card]:
    if what in view.descriptions:
        return [card(view.descriptions[what])]
    question = next((q for name, q in PAGES.items() if what in (name, str(q))), None)
    if question is not None:
        return [item for item in _of_page(view, question) if item.is_recorded(view)]
    names = [name for name in view.latest if _is_part(name, what)]
    if names:
        return [card(view.descriptions[name]) for name in names]
    raise UnknownMetricError(
        f"expected a metric, a group or a page of run {view.run.id!r}, got {what!r} in Run.figure; {_near(view, what)}"
    )


def _of_page(view: RunView, question: Question) -> Iterator[Card]:
    """Give the first cards of the page, and one for everything else that was measured for it."""
    shown: list[str] = []
    for item in LEADS[question](view) if question in LEADS else ():
        if isinstance(item, str) and item not in view.latest:
            continue
        made = card(view.descriptions[item]) if isinstance(item, str) else item
        shown += made.names
        yield made
    yield from (card(d) for d in view.metrics(question) if d.name not in shown and d.name not in _RAW)


def _is_part(name: str, group: str) -> bool:
    """Tell whether a metric belongs to a group: `hessian.top` to "hessian", `nc1` to "nc"."""
    rest = name.removeprefix(group)
    return bool(group) and rest != name and (rest.startswith(".") or rest[:1].isdigit())


def _near(view: RunView, what: str) -> str:
    groups = {name.partition(".")[0] for name in view.latest if "." in name}
    near = get_close_matches(what, sorted({*view.latest, *groups, *PAGES}), 3, 0.4)
    return f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(view.latest) or 'no metrics yet'}"


def _why(view: RunView, cards: list[Card]) -> str:
    names = [name for item in cards for name in item.names if name in view.latest]
    reasons = dict.fromkeys(reason for name in names if (reason := view.latest[name][1].missing))
    if not names:
        return "the run measured nothing for this page: name what it shows in tv.watch(..., probes=[...])"
    return f"undefined so far: {'; '.join(reasons) or 'no value yet'}"
