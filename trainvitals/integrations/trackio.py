"""trackio: a run of its library, local (needs the package `trackio`)."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# It is optional, and not among what is checked with.

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trackio

from trainvitals.integrations.sink import Sink


class TrackioSink(Sink):
    """Log scalars to a trackio run.

    Args:
        project: of trackio.
        options: of `trackio.init`, as name="digits".
    """

    def __init__(self, project: str, **options: Any) -> None:
        self._run = trackio.init(project=project, **options)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log the scalars."""
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()
