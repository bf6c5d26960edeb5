"""The numbers behind a chart as a file: CSV or Parquet, made when the button is pressed.

All points in the shown steps, not those that the chart draws; of a very long metric as many as `MAX_POINTS`, and the
file's name says so. `trainvitals export` writes whole runs.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence

import pandas as pd
import streamlit as st

from trainvitals.run import open_run
from trainvitals.store.postgres_address import is_address
from trainvitals.views.run_view import RunView
from trainvitals.views.step_range import Window
from trainvitals.views.words import clean

MAX_POINTS = 200_000  # of one metric in one file
_FORMULA = tuple("=+-@＝＋－＠\t\r")  # what a spreadsheet runs: OWASP, "CSV Injection"


def table_of(path: str, store: str, names: Sequence[str], window: Window) -> pd.DataFrame:
    """Return a row a number: `metric`, then the columns of `Run.series`. Metrics without points have no rows."""
    first, last = window
    parts = []
    with open_run(path, store) if is_address(store) else open_run(path) as run:
        recorded = set(run.names())
        for name in names:
            if name in recorded:
                points = run.series(name, first, None if last is None else last + 1, MAX_POINTS)
                points.insert(0, "metric", name)
                parts.append(points)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def as_csv(table: pd.DataFrame) -> bytes:
    r"""Return a table as CSV; no text in it starts a formula.

    >>> as_csv(pd.DataFrame({"key": ["=1+1", "fc"], "value": [-1.0, 2.0]}))
    b"key,value\n'=1+1,-1.0\nfc,2.0\n"
    """
    safe = table.copy()
    for column in safe.columns:
        if safe[column].dtype == object or pd.api.types.is_string_dtype(safe[column]):
            safe[column] = [_harmless(value) for value in safe[column]]
    return safe.to_csv(index=False, lineterminator="\n").encode()


def _harmless(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = clean(value, 2000)
    return f"'{text}" if value.startswith(_FORMULA) or text.startswith(_FORMULA) else text


def as_parquet(table: pd.DataFrame) -> bytes:
    """Return a table as Parquet."""
    out = io.BytesIO()
    table.to_parquet(out, index=False)
    return out.getvalue()


def file_name(*words: str) -> str:
    """Return words as the name of a file, without an ending.

    >>> file_name("digits/../cnn", "hessian.top")
    'digits-cnn-hessian.top'
    """
    kept = [re.sub(r"[^\w.-]+|\.{2,}", "-", clean(word, 80)).strip("-.") for word in words]
    return re.sub("-{2,}", "-", "-".join(filter(None, kept))) or "data"


def buttons(view: RunView, names: Sequence[str], key: str, store: str) -> None:
    """Show a button for each kind of file."""
    path, window = view.run.id if is_address(store) else str(view.run.path), view.window

    def made(write: Callable[[pd.DataFrame], bytes]) -> Callable[[], bytes]:
        return lambda: write(table_of(path, store, names, window))

    name = file_name(view.run.name, *names[:1])
    with st.container(horizontal=True, gap="small"):
        st.download_button("CSV", made(as_csv), f"{name}.csv", "text/csv", key=f"csv-{key}", on_click="ignore")
        st.download_button("Parquet", made(as_parquet), f"{name}.parquet", "application/vnd.apache.parquet",
                           key=f"parquet-{key}", on_click="ignore")  # fmt: skip
    shown = "the shown steps" if window != (None, None) else "all steps"
    st.caption(f"{len(names)} metric{'s' * (len(names) > 1)}, {shown}; at most {MAX_POINTS:,} points of each. "
               "`trainvitals export` writes the whole run.")  # fmt: skip
