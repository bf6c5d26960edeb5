"""The tables of a run file, version by version.

A run file is one SQLite database. Records are numbered in order of arrival (`seq`). A *series* is one
field of one metric: `hessian.top` has a series of values, one of errors, one of seconds, and so on.
Every number of a record sits in one *frame*; frames wait in `hot` and are cut into `chunks`, 1,024
points of one series each, whose summaries stand apart from their bodies so that an overview of a
long series reads no body. Eight chunks have one summary together, eight of these the next, and so on
up: an overview of any length reads about as many rows. Arrays are rows of `vectors`. Repeated text is
kept once, in `texts`.

Every blob begins with its checksum, and every other row that says something has one in `crc`. All ids
are given by the writer, so the same rows have the same keys wherever they are copied.
"""

from __future__ import annotations

from enum import IntEnum

APPLICATION_ID = 0x54725674  # "TrVt" in the SQLite header: `file` and the catalogue tell our files by it
POINTS_PER_CHUNK = 1024
ROWS_PER_SUMMARY = 8  # summaries of one level that have one together on the next

# The columns that a row's `crc` covers, in this order; blobs of points have checksums of their own.
CHECKED_COLUMNS = {
    "header": ("key", "value"),
    "state": ("status", "message", "heartbeat", "last_step", "num_records", "num_points", "num_dropped", "lease"),
    "series": ("id", "name", "field"),
    "texts": ("id", "text"),
    "layouts": ("id", "series"),
    "vectors": ("id", "series", "seq", "step", "time", "keys"),
    "descriptions": ("name", "json"),
    "events": ("id", "step", "time", "kind", "message"),
}


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

# `crc` is filled by the migration; a chunk's row is made anew from its points.
VERSION_2 = """
ALTER TABLE header ADD COLUMN crc INTEGER;
ALTER TABLE state ADD COLUMN lease TEXT NOT NULL DEFAULT '';  -- token of the one process that may write
ALTER TABLE state ADD COLUMN crc INTEGER;
ALTER TABLE series ADD COLUMN crc INTEGER;
ALTER TABLE texts ADD COLUMN crc INTEGER;
ALTER TABLE layouts ADD COLUMN crc INTEGER;
ALTER TABLE vectors ADD COLUMN crc INTEGER;
ALTER TABLE descriptions ADD COLUMN crc INTEGER;
ALTER TABLE events ADD COLUMN crc INTEGER;
ALTER TABLE chunks RENAME TO chunks_1;
CREATE TABLE chunks (
    series INTEGER NOT NULL,
    level INTEGER NOT NULL,     -- 0: a chunk; above: eight rows of the level below
    first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    min_step INTEGER NOT NULL,
    max_step INTEGER NOT NULL,
    body INTEGER,               -- id in `bodies`; NULL above level 0
    summary BLOB NOT NULL,      -- extremes, ends and the first value that is not finite: see summaries.py
    PRIMARY KEY (series, level, first_seq)
) WITHOUT ROWID;
"""
