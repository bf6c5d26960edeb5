"""The recorded runs that are shipped, unpacked and opened."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path

import trainvitals as tv
from trainvitals.sample_runs.catalogue import Sample


def unpack(samples: Iterable[Sample], store: Path) -> list[Path]:
    """Write the recorded runs of samples into a store, over those already there, and return their files."""
    store.mkdir(parents=True, exist_ok=True)
    files = []
    for sample in samples:
        for arm, packed in sample.recordings.items():
            path = store / f"{sample.name}-{arm}.sqlite"
            path.write_bytes(gzip.decompress(packed.read_bytes()))
            files.append(path)
    return files


def recorded_runs(sample: Sample, folder: Path) -> dict[str, tv.Run]:
    """Unpack a sample's recorded runs into a folder and open them, by the name of the arm."""
    unpack([sample], folder)
    return {arm: tv.open_run(folder / f"{sample.name}-{arm}.sqlite") for arm in sample.recordings}
