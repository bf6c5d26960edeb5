"""TensorBoard: event files, by torch's own SummaryWriter (needs the package `tensorboard`)."""

from __future__ import annotations

import os
from collections.abc import Mapping

from torch.utils.tensorboard import SummaryWriter

from trainvitals.integrations.sink import Sink


class TensorBoardSink(Sink):
    """Write scalars to an event file; `hessian.top/λ1` stands in the section `hessian.top`.

    Args:
        folder: of the event file.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._writer = SummaryWriter(os.fspath(folder))

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add the scalars."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()
