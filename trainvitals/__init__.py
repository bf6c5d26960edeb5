"""TrainVitals: the vital signs of a neural network, read while it trains.

Public names load on first use (PEP 562), so `import trainvitals` is cheap and the dashboard, which
only reads runs, never imports torch.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

# In a checkout `diagnostics/` and `probes/` stand beside this folder, in a wheel they stand inside it.
if not (Path(__file__).parent / "diagnostics").is_dir():
    __path__.append(str(Path(__file__).parent.parent))

_HOMES = {
    "watch": "trainvitals.probes.watch",
    "Watch": "trainvitals.probes.watch",
    "measure": "trainvitals.probes.measure",
    "analyze": "trainvitals.checkpoints.analysis",
    "every": "trainvitals.probes.schedule",
    "log_spaced": "trainvitals.probes.schedule",
    "at_steps": "trainvitals.probes.schedule",
    "on_epoch_end": "trainvitals.probes.on_epoch_end",
    "on_spike": "trainvitals.probes.on_spike",
    "Side": "trainvitals.probes.side",
    "open_run": "trainvitals.run",
    "list_runs": "trainvitals.run",
    "runs": "trainvitals.run_table",
    "Run": "trainvitals.run",
    "verdicts": "trainvitals.verdicts.engine",
    "Reading": "trainvitals.schema",
    "Description": "trainvitals.schema",
    "Status": "trainvitals.schema",
    "Verdict": "trainvitals.schema",
    "VerdictState": "trainvitals.schema",
}
__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'trainvitals' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
