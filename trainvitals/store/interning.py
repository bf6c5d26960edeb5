"""Names and texts of a run file by number: each is stored once and named by its id ever after."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

import numpy as np

from trainvitals.store.rows import Rows
from trainvitals.store.schema_sql import Field

MAX_TEXTS_IN_MEMORY = 4096  # details may differ at every step: the oldest are forgotten, and stored again if need be


def clean(text: str) -> str:
    r"""Return the text with what UTF-8 cannot hold (lone surrogates) as `\udc80`: SQLite would refuse it."""
    return str(text).encode("utf-8", "backslashreplace").decode()


class Interned:
    """Ids of series, layouts and texts, as the file has them.

    A transaction that is rolled back takes its new ids with it: make a new `Interned` then.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        connection = rows.connection
        self._series: dict[tuple[str, int], int] = {
            (name, field): id for id, name, field in connection.execute("SELECT id, name, field FROM series")
        }
        self.layouts: dict[int, list[int]] = {
            id: np.frombuffer(series, "<i4").tolist()
            for id, series in connection.execute("SELECT id, series FROM layouts")
        }
        self._layout_ids = {tuple(series): id for id, series in self.layouts.items()}
        self._by_columns: dict[Hashable, int] = {}
        self._texts: OrderedDict[str, int] = OrderedDict()
        self.contexts: dict[Hashable, int] = {}  # ids of texts by what they say: writing them out takes longer

    def series(self, name: str, field: int = Field.VALUE) -> int:
        """Return the id of one field of a metric."""
        name = clean(name)
        if (name, field) not in self._series:
            id = self._rows.next_id("series")
            self._rows.put("series", (id, name, int(field)))
            self._series[name, field] = id
        return self._series[name, field]

    def layout(self, columns: tuple[str | tuple[str, int], ...]) -> int:
        """Return the id of a frame's layout; a column is a metric's name or (name, field)."""
        known = self._by_columns.get(columns)
        if known is None:
            series = [self.series(c) if isinstance(c, str) else self.series(*c) for c in columns]
            known = self._by_columns[columns] = self._layout_of(series)
        return known

    def _layout_of(self, series: list[int]) -> int:
        if tuple(series) not in self._layout_ids:
            blob = np.array(series, "<i4").tobytes()
            id = self._rows.next_id("layouts")
            self._rows.put("layouts", (id, blob))
            self._layout_ids[tuple(series)], self.layouts[id] = id, series
        return self._layout_ids[tuple(series)]

    def text(self, text: str) -> int:
        """Return the id of a text."""
        text = clean(text)
        id = self._texts.get(text)
        if id is None:
            id = self._rows.next_id("texts")
            self._rows.put("texts", (id, text))
            self._texts[text] = id
            if len(self._texts) > MAX_TEXTS_IN_MEMORY:
                self._texts.popitem(last=False)
        else:
            self._texts.move_to_end(text)
        return id

    def context(self, says: Hashable, text: str) -> int:
        """Return the id of a text that is found again in `contexts` by what it says."""
        if len(self.contexts) >= MAX_TEXTS_IN_MEMORY:
            self.contexts.clear()
        self.contexts[says] = id = self.text(text)
        return id
