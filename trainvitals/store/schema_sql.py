"""The tables of a run file, version 1.

A run file is one SQLite database. Records are numbered in order of arrival (`seq`). A *series* is one
field of one metric: `hessian.top` has a series of values, one of errors, one of seconds, and so on.
Every number of a record sits in one *frame*; frames wait in `hot` and are cut into `chunks`, 1,024
points of one series each, whose summaries stand apart from their bodies so that an overview of a
long series reads no body. Arrays are rows of `vectors`. Repeated text is kept once, in `texts`.
"""

from __future__ import annotations

from enum import IntEnum

APPLICATION_ID = 0x54725674  # "TrVt" in the SQLite header: `file` and the catalogue tell our files by it
POINTS_PER_CHUNK = 1024


class Field(IntEnum):
    """Which number of a reading a series holds. The numbers are stored: never reuse one."""

    VALUE = 0
    ERROR = 1
    CONVERGED = 2  # 0 or 1; absent when there is nothing to converge
    HVPS = 3
    SECONDS = 4
    CONTEXT = 5  # id in `texts` of the definition and the provenance
    DETAILS = 6  # id in `texts` of small details
    MISSING = 7  # id in `texts` of the reason


VERSION_1 = """
CREATE TABLE header (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;  -- value is JSON
CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    status TEXT NOT NULL,       -- 'live' until the run says goodbye
    message TEXT NOT NULL,
    heartbeat REAL NOT NULL,    -- seconds since the epoch
    last_step INTEGER,          -- how far training is: as it says, else the step of the record that came last
    num_records INTEGER NOT NULL,
    num_points INTEGER NOT NULL,
    num_dropped INTEGER NOT NULL
);
CREATE TABLE series (id INTEGER PRIMARY KEY, name TEXT NOT NULL, field INTEGER NOT NULL, UNIQUE (name, field));
CREATE TABLE texts (id INTEGER PRIMARY KEY, text TEXT NOT NULL);
CREATE TABLE layouts (id INTEGER PRIMARY KEY, series BLOB NOT NULL);  -- int32 ids: the columns of a frame
CREATE TABLE hot (id INTEGER PRIMARY KEY, layout INTEGER NOT NULL, num_frames INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE chunks (
    series INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    body INTEGER NOT NULL,      -- id in `bodies`
    num_points INTEGER NOT NULL,
    min_step INTEGER NOT NULL,
    max_step INTEGER NOT NULL,
    first_value REAL,           -- NULL stands for NaN
    last_value REAL,
    min_value REAL,             -- of finite values; NULL when there is none
    max_value REAL,
    step_of_min INTEGER,
    step_of_max INTEGER,
    nonfinite BLOB,             -- one bit a point; NULL when all are finite
    PRIMARY KEY (series, first_seq)
) WITHOUT ROWID;
CREATE TABLE bodies (id INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE vectors (
    id INTEGER PRIMARY KEY,
    series INTEGER NOT NULL,    -- the metric's VALUE series
    seq INTEGER NOT NULL,
    step INTEGER NOT NULL,
    time REAL NOT NULL,
    keys INTEGER,               -- id in `texts` of a JSON list
    body BLOB NOT NULL          -- named arrays: value, error, details.grid...
);
CREATE INDEX vectors_by_series ON vectors (series, seq);
CREATE TABLE descriptions (name TEXT PRIMARY KEY, json TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE events (
    id INTEGER PRIMARY KEY, step INTEGER NOT NULL, time REAL NOT NULL, kind TEXT NOT NULL, message TEXT NOT NULL
);
"""
