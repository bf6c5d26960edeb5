"""One metric of one run, ready to be drawn: what it is, its points, and where it is missing."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from trainvitals.schema import Description

POINT_COLUMNS = ["step", "time", "key", "value", "error", "converged", "seconds"]
MISSING_COLUMNS = ["step", "time", "reason"]


def no_points() -> pd.DataFrame:
    """Return a table of points without rows."""
    return pd.DataFrame({column: pd.Series(dtype=object if column in {"key", "converged"} else float)
                         for column in POINT_COLUMNS})  # fmt: skip


def none_missing() -> pd.DataFrame:
    """Return a table of missing points without rows."""
    return pd.DataFrame({"step": pd.Series(dtype=float), "time": pd.Series(dtype=float),
                         "reason": pd.Series(dtype=object)})  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """A description with the run's points (one row per step and key) and its missing points."""

    description: Description
    points: pd.DataFrame = field(default_factory=no_points)  # POINT_COLUMNS
    missing: pd.DataFrame = field(default_factory=none_missing)  # MISSING_COLUMNS

    @property
    def name(self) -> str:
        """The metric's name."""
        return self.description.name

    @property
    def is_empty(self) -> bool:
        """Whether there is neither a point nor a missing point."""
        return self.points.empty and self.missing.empty

    def keys(self) -> list[str]:
        """Return the keys in the order in which they first came; `""` alone for a plain number."""
        return list(dict.fromkeys(key_texts(self.points)))

    def by_key(self) -> dict[str, pd.DataFrame]:
        """Return the points of each key."""
        keys = key_texts(self.points)
        return {str(key): rows for key, rows in self.points.groupby(keys, sort=False)}

    def finite(self) -> pd.DataFrame:
        """Return the points whose value is finite."""
        return self.points.loc[np.isfinite(self.points["value"].to_numpy(float))]


def key_texts(points: pd.DataFrame) -> pd.Series:
    """Return the keys as text, `""` where there is none."""
    keys: pd.Series = points.loc[:, "key"]
    return keys.astype(object).where(keys.notna(), "").astype(str)
