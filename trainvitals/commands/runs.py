"""`trainvitals runs`, `show` and `get`: what was recorded. Nothing here imports torch."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from trainvitals.commands.summary import table
from trainvitals.commands.terminal import (
    cell,
    clock,
    console,
    example,
    failed,
    printable,
    say,
    to_csv,
    to_json,
    warn,
    wrong_usage,
)
from trainvitals.store.catalogue import update
from trainvitals.store.postgres_address import is_address, shown

if TYPE_CHECKING:
    import pandas as pd

    from trainvitals.run import Run

ROWS_SHOWN = 20  # of a series, for a reader; --csv and --json give all

Store = Annotated[str, typer.Option(help="Folder that holds the runs, or postgresql://user@host/database.")]
Json = Annotated[bool, typer.Option("--json", help="Strict JSON for a program; NaN is the string \"NaN\".")]
RunName = Annotated[str, typer.Argument(help="Id, the beginning of one, a name, a path, or 'latest'.", metavar="RUN")]


def runs(store: Store = "runs/", json: Json = False) -> None:
    """List the runs of a store, newest first."""
    from trainvitals.run import list_runs  # pandas: only when a run is read

    found = list_runs(store)
    if not is_address(store):
        update(store)
    if json:
        print(to_json([dataclasses.asdict(run) for run in found]))
        return
    if not found:
        say(f"No runs in {shown(store)}. `trainvitals demo` records one.")
        return
    lines = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("id", "name", "status", "started", "last step", "points"):
        lines.add_column(header, overflow="fold")
    for run in found:
        problem = "" if run.problem is None else "unreadable"
        lines.add_row(cell(run.id), cell(run.name), cell(run.status or problem), cell(clock(run.started)),
                      cell(_count(run.last_step)), cell(_count(run.num_points)))  # fmt: skip
    console().print(lines)
    for run in found:
        if run.problem is not None:
            warn(f"{run.id} is unreadable: {run.problem}")


def _count(number: int | None) -> str:
    return "" if number is None else str(number)


def show(run: RunName, store: Store = "runs/", json: Json = False) -> None:
    """Show a run: what it is, its last values with error and cost, and what happened."""
    with opened(run, store) as found:
        if json:
            print(to_json(_as_json(found)))
            return
        for name, value in _facts(found):
            say(f"{name:<10} {value}")
        latest = found.latest()
        if latest:
            console().print(table(latest, found.descriptions))
        for step, _, kind, message in found.events().itertuples(index=False):
            say(f"step {step}: {kind}{': ' if message else ''}{message}")


def _facts(run: Run) -> Iterable[tuple[str, Any]]:
    model, optimizer = run.meta.get("model", {}), run.meta.get("optimizer", {})
    yield "run", run.id
    yield "name", run.name
    yield "status", run.status + (f" ({run.message})" if run.message else "")
    yield "started", clock(run.started)
    yield "updated", clock(run.updated)
    yield "last step", _count(run.last_step)
    yield "file", run.path
    if run.tags:
        yield "tags", ", ".join(run.tags)
    for line in run.note.splitlines():
        yield "note", line
    commit = run.meta.get("environment", {}).get("git", {})
    if commit:
        yield "commit", commit["commit"] + (" and changes" if commit.get("is_changed") else "")
    if run.meta.get("command"):
        yield "command", " ".join(map(str, run.meta["command"]))
    if model:
        yield "model", f"{model.get('class')}, {model.get('num_parameters')} parameters"
    if optimizer:
        yield "optimizer", optimizer.get("class")
    if run.num_dropped:
        yield "dropped", f"{run.num_dropped} points could not be saved"


def _as_json(run: Run) -> dict[str, Any]:
    descriptions = run.descriptions
    latest = {
        name: {"step": step, **_reading_fields(reading), "title": getattr(descriptions.get(name), "title", None)}
        for name, (step, reading) in run.latest().items()
    }
    return {
        "id": run.id, "name": run.name, "path": run.path, "status": run.status, "message": run.message,
        "started": run.started, "updated": run.updated, "last_step": run.last_step, "num_points": run.num_points,
        "num_dropped": run.num_dropped, "tags": run.tags, "note": run.note, "meta": run.meta, "latest": latest,
        "events": run.events().to_dict("records"),
    }  # fmt: skip


def _reading_fields(reading: Any) -> dict[str, Any]:
    names = ("value", "error", "converged", "keys", "missing", "definition", "hvps", "seconds")
    return {name: getattr(reading, name) for name in names}


def get(
    run: RunName,
    metric: Annotated[str, typer.Argument(help="Name of a metric of the run.", metavar="METRIC")],
    store: Store = "runs/",
    json: Json = False,
    csv: Annotated[bool, typer.Option("--csv", help="Comma-separated, all points, one row per key.")] = False,
    start: Annotated[int | None, typer.Option(help="First step.")] = None,
    stop: Annotated[int | None, typer.Option(help="Step before which to stop.")] = None,
) -> None:
    """Print the points of one metric; without --json or --csv the last 20, for a reader."""
    if json and csv:
        wrong_usage("expected --json or --csv, got both; leave one out")
    with opened(run, store) as found:
        points, missing = _points(found, metric, start, stop)
        _say_what_is_missing(missing)
        if json:
            print(to_json({
                "run": found.id, "metric": metric, "points": _records(points), "missing": _records(missing),
            }))  # fmt: skip
        elif csv:
            sys.stdout.write(to_csv(list(points.columns), _cells(points)))
        else:
            _print_points(points)


def _points(run: Run, metric: str, start: int | None, stop: int | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    from trainvitals.run import UnknownMetricError

    try:
        points, missing = run.series(metric, start, stop), run.missing(metric)
    except UnknownMetricError as error:
        wrong_usage(error)
    low = missing["step"] >= start if start is not None else missing["step"] == missing["step"]
    high = missing["step"] < stop if stop is not None else low
    return points, missing.loc[low & high]


def _say_what_is_missing(missing: pd.DataFrame) -> None:
    for reason, steps in missing.groupby("reason", sort=False)["step"]:
        warn(f"missing at {len(steps)} steps, {steps.min()} to {steps.max()}: {reason}")


def _cells(points: pd.DataFrame) -> Iterable[list[Any]]:
    """Return the rows; an empty error is one that was not stated, a NaN value one that was measured."""
    for step, moment, key, value, error, converged, seconds in points.itertuples(index=False):
        yield [step, moment, key, value, None if error != error else error, converged, seconds]


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    if "error" not in frame:
        return frame.to_dict("records")
    return [dict(zip(frame.columns, row, strict=True)) for row in _cells(frame)]


def _print_points(points: pd.DataFrame) -> None:
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("step", "key", "value", "± error", "converged"):
        shown.add_column(header, overflow="fold")
    for step, _, key, value, error, converged, _ in _cells(points.tail(ROWS_SHOWN)):
        shown.add_row(cell(step), cell(key), cell(f"{value:.6g}"), cell("" if error is None else f"{error:.3g}"),
                      cell("" if converged is None else converged))  # fmt: skip
    console().print(shown)
    if len(points) > ROWS_SHOWN:
        say(f"the last {ROWS_SHOWN} of {len(points)} rows; --csv or --json gives all")


def opened(run: str, store: str) -> Run:
    """Open the run. An unknown name is wrong usage, an unreadable file is failed work."""
    from trainvitals.run import UnknownRunError, list_runs, open_run

    broken = {found.id: found.problem for found in list_runs(store) if found.problem is not None}
    if run in broken:
        failed(f"{printable(run)} is unreadable: {broken[run]}")
    try:
        return open_run(run, store)
    except UnknownRunError as error:
        wrong_usage(error)


COMMANDS = (
    (runs, example("trainvitals runs", "trainvitals runs --store experiments/ --json")),
    (show, example("trainvitals show latest", "trainvitals show digits-cnn --json")),
    (get, example("trainvitals get latest hessian.top --csv > top.csv", "trainvitals get latest gap.loss --json")),
)
