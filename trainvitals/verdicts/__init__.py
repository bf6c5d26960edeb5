"""Verdicts: what is wrong with a run, since when, on what evidence, and what to try.

`trainvitals.verdicts` is at once this package and the public call `trainvitals.verdicts(run)`: the package is
made callable, because importing any module of it puts it where the function would stand.
"""

import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    def __call__(self, run: Any) -> Any:
        """Return the verdicts on a run: `trainvitals.verdicts.engine.verdicts`."""
        from trainvitals.verdicts.engine import verdicts

        return verdicts(run)


sys.modules[__name__].__class__ = _CallablePackage
