"""The first page over a run that overfits: what it says, what it draws, and what a reader can answer."""

import json

import numpy as np
import pytest
from conftest import HOSTILE, PAGES

from trainvitals.run import open_run
from trainvitals.schema import Advice, Description, Evidence, Record, Status, Verdict, VerdictState
from trainvitals.store.writer import RunWriter
from trainvitals.views import charts
from trainvitals.views.run_view import RunView

FIRST = next(page for page in PAGES if page.stem == "is_anything_wrong")


@pytest.fixture(scope="module")
def overfitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    noise = np.random.default_rng(0).normal(size=(120, 2)) * 0.003
    writer = RunWriter.create(folder, "overfits", {}, {})
    for step in range(120):
        train, heldout = 2 * np.exp(-step / 25), 2 * np.exp(-step / 15) + 0.1 + 0.02 * max(0, step - 40)
        losses = {"loss.train": train + noise[step, 0], "loss.heldout": heldout + noise[step, 1]}
        writer.append(Record(10 * step, 1e9 + step, scalars={k: float(v) for k, v in losses.items()}))
    writer.close(Status.FINISHED)
    return folder, writer


def texts(app):
    parts = [*app.markdown, *app.caption]
    return "\n".join(str(part.value) for part in parts).replace("\\", "").replace("\u2060", "")


def test_it_says_what_is_wrong_since_when_and_what_to_try(overfitted, open_app):
    app = open_app(overfitted[0], FIRST)
    assert not app.exception
    said = texts(app)
    assert "Yes: Overfitting, since step" in said
    assert "**Try:**" in said
    assert "What would change its mind" in said
    assert "could be checked" in said
    assert "**alarm**: several independent measurements agree" in said
    assert len(app.get("plotly_chart")) >= 1


def test_a_reader_who_disagrees_leaves_a_label_beside_no_run(overfitted, open_app, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    folder, writer = overfitted
    before = writer.path.read_bytes()
    app = open_app(folder, FIRST)
    app.radio[0].set_value("healthy")
    app.text_input[0].set_value("warm restart")
    next(b for b in app.button if b.label == "Keep this label").click().run()
    (line,) = (tmp_path / "trainvitals" / "disagreements.jsonl").read_text().splitlines()
    assert json.loads(line)["condition"] == "overfitting"
    assert json.loads(line)["label"] == "healthy"
    assert json.loads(line)["note"] == "warm restart"
    assert writer.path.read_bytes() == before


def hostile_verdict():
    evidence = Evidence("loss.heldout", 10, 1.0, "above", 0.5, HOSTILE, HOSTILE, key=HOSTILE)
    return Verdict("x", HOSTILE, VerdictState.ALARM, 10, summary=HOSTILE, evidence=(evidence,),
                   advice=(Advice(HOSTILE, HOSTILE),), missing=(HOSTILE,))  # fmt: skip


def test_hostile_words_are_shown_as_they_are(overfitted, open_app, monkeypatch):
    monkeypatch.setattr("trainvitals.run.Run.verdicts", lambda self: [hostile_verdict()])
    app = open_app(overfitted[0], FIRST)
    assert not app.exception
    for part in app.markdown:
        assert "<img" not in str(part.value).replace("\\<", "")


def test_onsets_are_marked_on_a_chart_if_they_are_in_view():
    figure = charts.with_onsets(charts.go.Figure(), [(10, "A"), (10, HOSTILE), (999, "B")], (0, 100))
    assert [shape.x0 for shape in figure.layout.shapes] == [10]
    (mark,) = figure.layout.annotations
    assert mark.hovertext.startswith("A, since step 10<br>&lt;img")


def test_every_chart_of_the_run_shows_the_onset(overfitted):
    with open_run(overfitted[1].path) as run:
        view = RunView(run)
        assert [title for _, title in view.onsets][:1] == ["Overfitting"]
        assert all(isinstance(d, Description) for d in view.descriptions.values())
