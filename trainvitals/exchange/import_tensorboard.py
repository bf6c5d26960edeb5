"""TensorBoard's event files: scalars and histograms with their steps and wall times.

Every folder with event files is a run, as in TensorBoard. Its files are read in the order of their
names, which begin with the time at which they were begun; a run that was restarted shows both passes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from trainvitals.exchange.histograms import density_of, describe_histogram
from trainvitals.exchange.recording import FoundRun
from trainvitals.schema import Reading, Record
from trainvitals.store.errors import StoreError

SCALARS, HISTOGRAMS = "scalars", "histograms"  # names of TensorBoard's plugins


def find_tensorboard(path: str | os.PathLike[str]) -> list[FoundRun]:
    """Return the runs below a folder, or the run of one event file.

    Raises:
        StoreError: if there is no event file, or tensorboard is not installed.
    """
    top = Path(path)
    files = [top] if top.is_file() else sorted(top.rglob("*tfevents*"))
    files = [file for file in files if file.is_file()]
    if not files:
        raise StoreError(
            f"expected a folder with event files (*tfevents*), got {str(path)!r} in import tensorboard; "
            "give the folder that tensorboard --logdir takes"
        )
    _loader()
    folders: dict[Path, list[Path]] = {}
    for file in files:
        folders.setdefault(file.parent, []).append(file)
    return [_found(top, folder, members) for folder, members in folders.items()]


def _found(top: Path, folder: Path, files: list[Path]) -> FoundRun:
    inside = folder.relative_to(top) if top.is_dir() else Path()
    name = folder.resolve().name if inside == Path() else str(inside)
    found = FoundRun(name, "TensorBoard", ())
    found.records = _records(files, found)
    return found


def _loader() -> tuple[Any, Any]:
    try:
        from tensorboard.backend.event_processing import event_file_loader
        from tensorboard.util import tensor_util
    except ImportError as error:
        raise StoreError(
            f"expected tensorboard to read its files, got {error} in import tensorboard; "
            "install it: pip install 'trainvitals[tensorboard]'"
        ) from error
    return event_file_loader.EventFileLoader, tensor_util.make_ndarray


def _events(files: list[Path]) -> Iterator[tuple[Any, Any, str]]:
    """Yield (event, value, plugin's name) of every summary value; a tag's plugin is told once only."""
    loader, _ = _loader()
    plugins: dict[str, str] = {}
    for file in sorted(files, key=lambda path: path.name):
        for event in loader(str(file)).Load():
            for value in event.summary.value:
                name = value.metadata.plugin_data.plugin_name
                if name:
                    plugins[value.tag] = name
                yield event, value, plugins.get(value.tag, "")


def _records(files: list[Path], found: FoundRun) -> Iterator[Record]:
    _, to_array = _loader()
    for event, value, plugin in _events(files):
        scalars: dict[str, float] = {}
        readings: dict[str, Reading] = {}
        if plugin == SCALARS:
            array = np.asarray(to_array(value.tensor))
            if array.size == 1 and array.dtype.kind in "fiub":
                scalars[value.tag] = float(array.reshape(()))
        elif plugin == HISTOGRAMS:
            reading = density_of(np.asarray(to_array(value.tensor), np.float64))
            if reading is not None:
                readings[value.tag] = reading
                found.descriptions.setdefault(value.tag, describe_histogram(value.tag, "TensorBoard"))
        if scalars or readings:
            yield Record(int(event.step), float(event.wall_time), readings, scalars)
        else:
            found.left_out[plugin or "unknown"] = found.left_out.get(plugin or "unknown", 0) + 1
