"""Which folder the dashboard reads: `--store` after `--`, the variable TRAINVITALS_STORE, or `runs/`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

VARIABLE = "TRAINVITALS_STORE"
DEFAULT = "runs/"


def store_folder(arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> str:
    """Return the store folder.

    >>> store_folder(["app.py", "--store", "mine"], {}), store_folder(["app.py"], {"TRAINVITALS_STORE": "theirs"})
    ('mine', 'theirs')
    """
    arguments = sys.argv if arguments is None else arguments
    environment = os.environ if environment is None else environment
    for index, word in enumerate(arguments):
        if word.startswith("--store="):
            return word.removeprefix("--store=")
        if word == "--store" and index + 1 < len(arguments):
            return arguments[index + 1]
    return environment.get(VARIABLE) or DEFAULT
