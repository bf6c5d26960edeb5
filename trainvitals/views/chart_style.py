"""How all charts are drawn: smoothing, the value axis, the kind of picture that is saved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainvitals.schema import Scale


@dataclass(frozen=True)
class ChartOptions:
    """What the reader chose for all charts."""

    smoothing: float = 0.0  # width of the mean as a share of the shown steps; 0: none
    scale: Scale | None = None  # of the value axis; None: as each metric defines it
    picture: str = "png"

    def config(self, name: str) -> dict[str, Any]:
        """Return plotly's settings of one chart; its camera button saves `name`.png or .svg."""
        saved = {"format": self.picture, "filename": name, "scale": 1 if self.picture == "svg" else 2}
        return {"displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d"], "toImageButtonOptions": saved}
