"""The numbers behind a chart as files."""

import io

import make_run
import pandas as pd
import pytest

from trainvitals.run import open_run
from trainvitals.views import downloads
from trainvitals.views.downloads import as_csv, as_parquet, file_name, table_of


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    make_run.record_run(folder, num_steps=100)
    with open_run("latest", folder) as run:
        yield run


def test_the_file_holds_every_point_of_the_metrics_in_the_shown_steps(run):
    found = table_of(str(run.path), str(run.path.parent), ["loss.train", "oui.layers", "no.such"], (20, 60))
    assert set(found["metric"]) == {"loss.train", "oui.layers"}
    assert (found["step"].min(), found["step"].max()) == (20, 60)
    expected = run.series("loss.train", 20, 61)["value"].tolist()
    assert found.loc[found["metric"] == "loss.train", "value"].tolist() == expected


def test_both_kinds_of_file_hold_the_same_numbers(run):
    found = table_of(str(run.path), "", ["hessian.top"], (None, None))
    csv, parquet = pd.read_csv(io.BytesIO(as_csv(found))), pd.read_parquet(io.BytesIO(as_parquet(found)))
    assert csv["value"].tolist() == pytest.approx(found["value"].tolist(), rel=1e-12)
    assert parquet["value"].tolist() == found["value"].tolist()
    assert parquet["key"].tolist() == found["key"].tolist()


def test_of_a_metric_that_the_run_does_not_have_the_file_is_empty(run):
    assert table_of(str(run.path), "", ["no.such"], (None, None)).empty


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "＝1"])
def test_no_text_starts_a_formula(text):
    line = as_csv(pd.DataFrame({"key": [text]})).decode().splitlines()[1]
    assert line.startswith("'")


def test_a_long_metric_is_cut_to_what_a_browser_can_take(run, monkeypatch):
    monkeypatch.setattr(downloads, "MAX_POINTS", 8)
    assert len(table_of(str(run.path), "", ["loss.train"], (None, None))) <= 8


@pytest.mark.parametrize(("words", "name"), [
    (("run", "hessian.top"), "run-hessian.top"), (("../../etc/passwd",), "etc-passwd"), (("",), "data"),
    (('<img src="x">', "a"), "img-src-x-a"),
])  # fmt: skip
def test_a_files_name_is_plain(words, name):
    assert file_name(*words) == name
