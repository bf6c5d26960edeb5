"""What axe-core (Deque, MPL-2.0; it comes with axe-playwright-python) finds on a page."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import axe_playwright_python

OPTIONS = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"], "resultTypes": ["violations"]}


@cache
def _library() -> str:
    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


def violations(page) -> list[tuple[str, str, str]]:
    """Return (rule, impact, element) of every serious or critical violation on the page."""
    page.evaluate(_library())
    found = page.evaluate("options => axe.run(document, options)", OPTIONS)["violations"]
    return [(v["id"], v["impact"], node["html"][:300]) for v in found if v["impact"] in ("serious", "critical")
            for node in v["nodes"]]  # fmt: skip
