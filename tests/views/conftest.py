"""Runs recorded once with the real writer, and the app on a store folder."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests import `make_run` by name

import make_run

APP = Path(__file__).parents[2] / "app.py"
PAGES = sorted((APP.parent / "trainvitals/views/app_pages").glob("[!_]*.py"))
HOSTILE = '<img src=x onerror="window.hacked=1"> **b** $x$ :smile: [l](javascript:alert(1)) %{y}'


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    make_run.record_run(folder, num_steps=200)
    return folder


@pytest.fixture
def open_app(monkeypatch):
    """Return a function that runs a page of the app on a store folder; the run in the address is optional."""
    from streamlit.testing.v1 import AppTest

    def run(folder, page: Path | None = None, run_id: str | None = None) -> AppTest:
        monkeypatch.setenv("TRAINVITALS_STORE", str(folder))
        app = AppTest.from_file(str(APP), default_timeout=60)
        if run_id is not None:
            app.query_params["run"] = run_id
        app.run()
        if page is not None:
            app.switch_page(str(page.relative_to(APP.parent))).run()
        return app

    return run
