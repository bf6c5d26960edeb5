"""A recorded run as users read it: names, series as DataFrames, events, live or finished.

Every call reads what is in the file at that moment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from trainvitals.schema import Description, Reading, RunSummary, Status, Verdict
from trainvitals.store.catalogue import SUFFIXES, list_folder
from trainvitals.store.errors import StoreError
from trainvitals.store.postgres_address import is_address, missing_driver, shown
from trainvitals.store.reader import MIN_POINTS, Header, RunReader, Series, Vector
from trainvitals.store.source import OpenSource
from trainvitals.verdicts.engine import judge
from trainvitals.verdicts.run_facts import RunFacts
from trainvitals.verdicts.source import StoreSource

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MANIFEST = "manifest.json"  # a folder that has one is an archive: a store with one run
COLUMNS = ["step", "time", "key", "value", "error", "converged", "seconds"]


class UnknownRunError(StoreError):
    """No run, or more than one, answers to that name."""


class UnknownMetricError(StoreError):
    """The run has no metric of that name."""


def list_runs(store: str | os.PathLike[str] = "runs/") -> list[RunSummary]:
    """Return the runs of a folder or a database, newest first; what cannot be read comes last, with `.problem` set.

    Raises:
        StoreError: if a database does not answer or refuses.

    >>> list_runs("a-folder-that-does-not-exist")
    []
    """
    return _database().list_database(store) if is_address(store) else list_folder(store)


def _database() -> ModuleType:
    """Return what reads databases; only then is their driver needed.

    Raises:
        StoreError: if the driver is not installed.
    """
    try:
        from trainvitals.store import postgres_source
    except ImportError as error:
        raise missing_driver(error) from error
    return postgres_source


def open_run(path_or_id: str | os.PathLike[str] = "latest", store: str | os.PathLike[str] = "runs/") -> Run:
    """Open a recorded run, live or not.

    Args:
        path_or_id: the path of a run file, a run's id, the beginning of one, a run's name (the newest
            run of that name), or "latest"; or the folder of an archive that `trainvitals export` has made.
        store: the folder to look in when it is not a path, or a postgresql:// address.

    Raises:
        UnknownRunError: if no run answers to it (with near names), or several do.
        StoreError: if it cannot be read.
    """
    if is_address(store):
        summary = _find(os.fspath(path_or_id), list_runs(store), store)
        return Run(summary.path, _database().opening(store, summary.id))
    path = Path(path_or_id)
    if path.suffix in SUFFIXES and _exists(path):
        return Run(path)
    wanted = os.fspath(path_or_id)
    for direct in (Path(store) / f"{wanted}{suffix}" for suffix in SUFFIXES):
        if path.name == wanted and _exists(direct):
            return Run(direct)
    if _exists(path / MANIFEST):
        return Run(_find("latest", list_runs(path), path).path)
    return Run(_find(wanted, list_runs(store), store).path)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name of a run, longer than a file's name may be
        return False


def _find(wanted: str, runs: list[RunSummary], store: str | os.PathLike[str]) -> RunSummary:
    readable = [run for run in runs if run.problem is None]
    if wanted == "latest" and readable:
        return readable[0]
    for run in readable:
        if wanted in (run.name, run.id):
            return run
    begun = [run for run in runs if wanted and run.id.startswith(wanted)]
    if len(begun) == 1:
        return begun[0]
    where = f"in open_run({wanted!r}, store={_named(store)!r})"
    if begun:
        ids = ", ".join(run.id for run in begun[:5]) + (", …" if len(begun) > 5 else "")
        raise UnknownRunError(
            f"expected the beginning of one run's id, got {wanted!r} that {len(begun)} runs share "
            f"{where}; write more of one of {ids}"
        )
    near = get_close_matches(wanted, [word for run in readable for word in (run.id, run.name)], 3, 0.4)
    hint = f"did you mean {' or '.join(dict.fromkeys(near))}?" if near else _what_is_there(readable, store)
    raise UnknownRunError(
        f"expected a run file, an id, the beginning of an id, a run's name or 'latest', got {wanted!r} {where}; {hint}"
    )


def _what_is_there(runs: list[RunSummary], store: str | os.PathLike[str]) -> str:
    if not runs:
        return f"there is no readable run in {_named(store)!r}: check the folder"
    return f"the newest run there is {runs[0].id}"


def _named(store: str | os.PathLike[str]) -> str:
    """Return a store as a message may name it: an address without its password."""
    return shown(os.fspath(store))


class Run:
    """A recorded run. Make it with `open_run`.

    Nothing is held open between calls, and each call reads what is in the file then. Points are sorted
    by step; points of one step stay in the order in which they came.
    """

    def __init__(self, path: str | os.PathLike[str], source: OpenSource | None = None) -> None:
        self._reader = RunReader(path if source is None else source)
        self._is_closed = False
        self._judged: tuple[int, tuple[Verdict, ...]] | None = None  # with the number of points then
        header = self._reader.header()
        self.id: str = header.id
        self.name: str = header.name
        self.path: Path | str = self._reader.path if source is None else str(path)  # a text for a run of a database
        self.meta: dict[str, Any] = dict(header.meta)
        self.started: float = header.started  # seconds since the epoch

    def _open(self) -> RunReader:
        if self._is_closed:
            raise StoreError(f"expected an open run, got {self.id!r} after close() in Run; open it again with open_run")
        return self._reader

    def _header(self) -> Header:
        return self._open().header()

    @property
    def status(self) -> Status:
        """What the run is doing now: live, stalled, crashed or finished."""
        return self._header().status

    @property
    def message(self) -> str:
        """What the run said at its end, in words; empty while it goes on."""
        return self._header().message

    @property
    def updated(self) -> float:
        """When the writer last saved, in seconds since the epoch."""
        return self._header().heartbeat

    @property
    def last_step(self) -> int | None:
        """The step of the record that came last; None before the first."""
        return self._header().last_step

    @property
    def num_points(self) -> int:
        """How many points were saved: numbers and arrays, missing ones included."""
        return self._header().num_points

    @property
    def num_dropped(self) -> int:
        """How many points could not be saved."""
        return self._header().num_dropped

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags that the run was given."""
        return self._header().tags

    @property
    def note(self) -> str:
        """What was noted about the run; empty if nothing was."""
        return self._header().note

    @property
    def descriptions(self) -> dict[str, Description]:
        """What is known of the metrics, by name, as the run recorded it."""
        return self._open().descriptions()

    def names(self) -> list[str]:
        """Return the names of all metrics with a point or a missing point, the user's own included."""
        return self._open().names()

    def series(self, name: str, start: int | None = None, stop: int | None = None,
               max_points: int | None = None) -> pd.DataFrame:  # fmt: skip
        """Return the points of a metric with start <= step < stop, all of them or few that look the same.

        With `max_points` the range is cut into buckets of equal width in steps. Of each bucket the
        smallest and the largest value are returned, and the first that is NaN or infinite; of the range
        the first and the last point too. All are points that were measured; spikes are among them. A
        long series is answered from summaries of its chunks without a look at most of its points. A
        bucket's edge then lies between two chunks. Arrays are taken evenly: at most so many of them.

        Args:
            name: of the metric.
            start: first step, or None.
            stop: step before which to stop, or None.
            max_points: at most so many numbers, and so many arrays; at least 8, or None for all.

        Returns:
            Columns `step`, `time` (seconds since the epoch), `key` (empty for a plain number), `value`,
            `error` (NaN: none), `converged` (True, False or None), `seconds`; arrays as one row a key.
            Missing points are left out; a NaN that was measured is there.

        Raises:
            UnknownMetricError: if the run has no such metric, with near names.
            StoreError: if `max_points` is less than 8.
        """
        if max_points is not None and max_points < MIN_POINTS:
            raise StoreError(
                f"expected max_points of at least {MIN_POINTS}, got {max_points} in Run.series; "
                "the ends and two buckets take so many"
            )
        self._check(name)
        return _frame(self._open().series(name, start, stop, max_points))

    def missing(self, name: str) -> pd.DataFrame:
        """Return `step`, `time` and `reason` of every moment at which the metric was undefined.

        Raises:
            UnknownMetricError: if the run has no such metric, with near names.
        """
        self._check(name)
        return pd.DataFrame(self._open().missing(name), columns=["step", "time", "reason"])

    def spent(self, name: str) -> tuple[float, int]:
        """Return the seconds that the measurements of a metric took, and how many values it has; arrays count once.

        Raises:
            UnknownMetricError: if the run has no such metric, with near names.
        """
        self._check(name)
        return self._open().spent(name)

    def spectra(self, name: str = "hessian.density") -> pd.DataFrame:
        """Return the densities of a metric, a row a measurement: `step`, `time`, `grid`, `density`, `error`.

        The last three hold arrays (G,); `error` is None where the band is not known. Readings without
        a grid are left out.

        Raises:
            UnknownMetricError: if the run has no such metric, with near names.
        """
        self._check(name)
        rows = [
            (v.step, v.time, v.arrays["details.grid"], v.arrays["value"], v.arrays.get("error"))
            for v in self._open().series(name).vectors
            if "details.grid" in v.arrays
        ]
        return pd.DataFrame(rows, columns=["step", "time", "grid", "density", "error"])

    def landscapes(self, name: str = "landscape") -> pd.DataFrame:
        """Return the losses on grids of a metric, a row a measurement: `step`, `time`, `coordinates`, `losses`.

        The last two hold arrays: coordinates (n,), losses (n,) on a line or (n, n) on a plane with a row per
        point of its first direction. Readings without coordinates are left out.

        Raises:
            UnknownMetricError: if the run has no such metric, with near names.
        """
        self._check(name)
        rows = [
            (v.step, v.time, v.arrays["details.coordinates"], v.arrays["value"])
            for v in self._open().series(name).vectors
            if "details.coordinates" in v.arrays
        ]
        return pd.DataFrame(rows, columns=["step", "time", "coordinates", "losses"])

    def latest(self) -> dict[str, tuple[int, Reading]]:
        """Return (step, reading) of the point of every metric that came last, missing ones too."""
        return self._open().latest()

    def figure(self, what: str, start: int | None = None, stop: int | None = None) -> Figure:
        """Return a Plotly figure, drawn as the dashboard draws it. Plotly is loaded only now.

        Args:
            what: a metric's name, as "hessian.top"; a page, as "sharpness" or "overfitting", whose charts come one
                below the other; or the first part of several names, as "hessian" or "nc".
            start: first step, or None.
            stop: step before which to stop, or None.

        Raises:
            UnknownMetricError: if it is none of these, with near names; or if the run has nothing to draw for it.
        """
        from trainvitals.views.figures import figure

        self._open()
        return figure(self, what, start, stop)

    def _ipython_display_(self) -> None:
        """Show the run in a notebook, live as long as it is."""
        from trainvitals.notebook import show

        show(self)

    def verdicts(self) -> list[Verdict]:
        """Return what is to be said of the run, one verdict a condition, the worst first: `trainvitals.verdicts`.

        Asked again, it is judged anew if points have come since; nothing new costs one look at the file's header.
        """
        header = self._header()
        if self._judged is None or self._judged[0] != header.num_points:
            with self._open().held() as reader:
                self._judged = header.num_points, tuple(judge(RunFacts(StoreSource(reader))))
        return list(self._judged[1])

    def events(self) -> pd.DataFrame:
        """Return what happened to the run in words: `step`, `time`, `kind`, `message`."""
        rows = [(e.step, e.time, e.kind, e.message) for e in self._open().events()]
        return pd.DataFrame(rows, columns=["step", "time", "kind", "message"])

    def damage(self) -> list[str]:
        """Read the whole run and return what cannot be read of it, in words; empty when all is whole.

        Every other call leaves out what is damaged and returns the rest.
        """
        return self._open().damage()

    def close(self) -> None:
        """Let the run go; further calls raise."""
        self._is_closed = True

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Run({self.id!r}, {'closed' if self._is_closed else str(self.status)})"

    def _check(self, name: str) -> None:
        names = self.names()
        if name in names:
            return
        near = get_close_matches(name, names, 3, 0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(names) or 'no metrics yet'}"
        raise UnknownMetricError(f"expected a metric of run {self.id!r}, got {name!r} in Run; {hint}")


def _frame(series: Series) -> pd.DataFrame:
    points = series.points
    numbers = {
        "step": points.step, "time": points.time, "key": np.full(len(points), "", object), "value": points.value,
        "error": series.error, "converged": _truths(series.converged), "seconds": series.seconds,
    }  # fmt: skip
    parts = [numbers]
    for vector, converged, seconds in zip(series.vectors, series.vector_converged, series.vector_seconds, strict=True):
        parts.append(_vector_columns(vector, converged, seconds))
    columns: Mapping[str, Any] = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
    columns = {**columns, "key": pd.Series(columns["key"], dtype=object)}  # pandas 3 would guess, and guess by content
    frame = pd.DataFrame(columns, columns=COLUMNS)
    if len(points) and series.vectors:
        frame = frame.sort_values("step", kind="stable", ignore_index=True)
    return frame


def _vector_columns(vector: Vector, converged: float, seconds: float) -> dict[str, np.ndarray]:
    value = np.asarray(vector.arrays["value"], np.float64)
    error = np.asarray(vector.arrays.get("error", np.nan), np.float64)
    is_one_each = error.shape == value.shape or error.ndim == 0
    error = np.broadcast_to(error, value.shape) if is_one_each else np.full(value.shape, np.nan)
    n = value.size
    return {
        "step": np.full(n, vector.step, np.int64), "time": np.full(n, vector.time),
        "key": np.array(_keys(vector.keys, value.shape), object), "value": value.reshape(-1),
        "error": error.reshape(-1), "converged": _truths(np.full(n, converged)), "seconds": np.full(n, seconds),
    }  # fmt: skip


def _keys(keys: tuple[str, ...], shape: tuple[int, ...]) -> list[str]:
    """Return a key for each number of an array: its row's name or number, and its column in brackets."""
    rows = list(keys) if len(keys) == shape[0] else [str(i) for i in range(shape[0])]
    num_columns = int(np.prod(shape[1:])) if len(shape) > 1 else 0
    return rows if len(shape) == 1 else [f"{row}[{j}]" for row in rows for j in range(num_columns)]


def _truths(numbers: np.ndarray) -> np.ndarray:
    """Return True, False or None for 1, 0 or NaN."""
    truths = np.full(len(numbers), None, object)
    known = ~np.isnan(numbers)
    truths[known] = numbers[known] != 0
    return truths
