"""The dashboard on a PostgreSQL store: the same pages, never the password, and words when the database is away."""

import pytest
from conftest import PAGES
from postgres_server import Server, program

from trainvitals.store.postgres_connection import close_idle
from trainvitals.store.shipping import Shipper

pytestmark = pytest.mark.skipif(program("initdb") is None, reason="PostgreSQL is not installed")


def everything(app) -> str:
    parts = [*app.markdown, *app.caption, *app.info, *app.warning, *app.error, *app.text]
    return "\n".join(str(part.value) for part in parts).replace("\\", "").replace("\u2060", "")


@pytest.mark.slow
def test_pages_show_a_run_of_a_database_and_say_when_it_is_away(open_app, store):
    path = next(store.glob("*.sqlite"))
    with Server() as server:
        address = server.database("runs")
        with Shipper(path, address) as shipper:
            shipper.ship()
        for page in (PAGES[0], next(page for page in PAGES if page.stem == "how_sharp_is_it")):
            app = open_app(address, page)
            assert not app.exception
            assert not app.error
            assert "digits-cnn" in everything(app)
            assert app.get("plotly_chart")
            assert server.password not in everything(app)
        run_id = path.stem
        assert app.query_params["run"] in (run_id, [run_id])
        close_idle()
        server.stop("immediate")
        run_picker_cache_clear()
        app = open_app(address)
        assert not app.exception
        assert "that answers" in everything(app)
        assert server.password not in everything(app)


def run_picker_cache_clear() -> None:
    from trainvitals.views import run_picker

    run_picker.runs_in.clear()
