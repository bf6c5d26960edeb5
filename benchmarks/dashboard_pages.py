"""Runs every page of the dashboard without a browser and prints what it took, for `benchmarks/dashboard.py`.

    python benchmarks/dashboard_pages.py STORE RUN REPEATS

A line a page: name, milliseconds the first time and again (process time, the median), charts, bytes of their data.
"""

from __future__ import annotations

import logging
import os
import statistics
import sys
import time
from pathlib import Path

import trainvitals


def main(store: str, run_id: str, repeats: int) -> None:
    """Print a line for each page."""
    os.environ["TRAINVITALS_STORE"] = store
    logging.disable(logging.WARNING)
    from streamlit.testing.v1 import AppTest

    views = Path(trainvitals.__file__).parent / "views"
    app = AppTest.from_file(str(views.parents[1] / "app.py"), default_timeout=300)
    app.query_params["run"] = run_id
    app.run()
    for path in sorted((views / "app_pages").glob("[!_]*.py")):
        app.switch_page(str(path.relative_to(views.parents[1])))
        taken = []
        for _ in range(repeats + 1):
            start = time.process_time()
            app.run()
            taken.append(1e3 * (time.process_time() - start))
        if app.exception or app.error:
            raise RuntimeError(f"{path.stem}: {[e.value for e in (*app.exception, *app.error)]}")
        charts = app.get("plotly_chart")
        num_bytes = sum(len(chart.proto.spec) for chart in charts)
        print(path.stem, f"{taken[0]:.1f}", f"{statistics.median(taken[1:]):.1f}", len(charts), num_bytes, sep="\t")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
