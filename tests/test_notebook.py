"""A run in a notebook follows the run, in a real kernel too; elsewhere nothing is loaded and no thread begins."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest
import torch
from views import make_run

import trainvitals as tv
from trainvitals import notebook
from trainvitals.schema import Record, Status
from trainvitals.store.writer import RunWriter


class Handle:
    def __init__(self):
        self.pictures = []

    def update(self, picture):
        self.pictures.append(picture.data)


@pytest.fixture
def live(tmp_path):
    writer = RunWriter.create(tmp_path, "live", {}, make_run.descriptions())
    writer.append(Record(0, time.time(), scalars={"train_loss": 2.0}))
    writer.flush()
    yield writer
    writer.close(Status.FINISHED, "")


def follow(run, handle, monkeypatch):
    monkeypatch.setattr(notebook, "SECONDS_BETWEEN", 0.02)
    monkeypatch.setattr(notebook, "_SHARE", 1e9)
    stop = threading.Event()
    thread = threading.Thread(target=notebook._follow, args=(run, handle, stop), daemon=True)
    thread.start()
    return stop, thread


def wait_for(what, seconds=20.0):
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.01)
    assert what()


def test_the_picture_follows_the_run_to_its_end(live, monkeypatch):
    handle = Handle()
    run = tv.open_run(live.path)
    _, thread = follow(run, handle, monkeypatch)
    wait_for(lambda: handle.pictures)
    live.append(Record(7, time.time(), scalars={"train_loss": 1.0}))
    live.progress(7)
    live.flush()
    wait_for(lambda: "step 7" in handle.pictures[-1])
    live.close(Status.FINISHED, "")
    thread.join(20)
    assert not thread.is_alive()
    assert "Finished" in handle.pictures[-1]
    assert all(a != b for a, b in zip(handle.pictures, handle.pictures[1:], strict=False))  # nothing is sent twice


@pytest.mark.parametrize("ends", ["stop", "close"])
def test_it_ends_when_it_is_told_to_or_the_run_is_closed(live, monkeypatch, ends):
    run = tv.open_run(live.path)
    stop, thread = follow(run, Handle(), monkeypatch)
    stop.set() if ends == "stop" else run.close()
    thread.join(20)
    assert not thread.is_alive()


def test_drawing_takes_nothing_of_the_random_states(live):
    before = torch.get_rng_state()
    notebook._picture(tv.open_run(live.path))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_terminal_is_told_what_it_is(live, capsys):
    pytest.importorskip("IPython")
    with tv.open_run(live.path) as run:
        notebook.show(run)
    assert capsys.readouterr().out.startswith(f"Run('{live.id}', live)")
    assert "trainvitals-notebook" not in {thread.name for thread in threading.enumerate()}


def test_nothing_is_loaded_and_no_thread_begins_outside_a_notebook(tmp_path):
    code = (
        "import sys, threading, torch, trainvitals as tv\n"
        "m = torch.nn.Linear(2, 1); o = torch.optim.SGD(m.parameters(), 0.1); x = torch.randn(8, 2)\n"
        "loss = torch.nn.functional.mse_loss\n"
        f"with tv.watch(m, o, loss=loss, train=(x, x[:, :1]), store={str(tmp_path)!r}) as run:\n"
        "    m(x).mean().backward(); o.step()\n"
        "    assert 'trainvitals-notebook' not in {t.name for t in threading.enumerate()}\n"
        "repr(run), repr(tv.open_run(run.path))\n"
        "assert not {'IPython', 'plotly', 'streamlit', 'trainvitals.notebook'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120, env=_environment())


def _environment():
    return os.environ | {"PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}


CELL = """
import time, torch, trainvitals as tv
from trainvitals import notebook
notebook.SECONDS_BETWEEN = 0.2
torch.manual_seed(0)
x, y = torch.randn(30, 4), torch.arange(30) % 3
model = torch.nn.Linear(4, 3)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
run = tv.watch(model, optimizer, loss=torch.nn.functional.cross_entropy, train=(x, y), store={store!r},
               name="in-a-notebook", probes=["loss.train"], every=1)
display(run)
for _ in range(10):
    optimizer.zero_grad(); torch.nn.functional.cross_entropy(model(x), y).backward(); optimizer.step()
    time.sleep(0.1)
run.close()
end = time.monotonic() + 60
while "trainvitals-notebook" in {{t.name for t in __import__("threading").enumerate()}} and time.monotonic() < end:
    time.sleep(0.1)
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # of jupyter_client and zmq
def test_a_real_kernel_shows_it_live_and_draws_figures(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    opens = f"tv.open_run('latest', store={str(tmp_path)!r})"
    cells = [CELL.format(store=str(tmp_path)), opens, f"{opens}.figure('loss.train')"]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(book, timeout=120, kernel_name="python3").execute()
    shown, opened, drawn = ([o for o in cell.outputs if o.output_type != "stream"] for cell in book.cells)
    (output,) = shown  # one picture, brought up to date
    assert "in-a-notebook" in output.data["text/html"]
    assert "step 10" in output.data["text/html"]
    assert "Finished" in output.data["text/html"]
    assert "<svg" in opened[0].data["text/html"]
    assert any("plotly" in kind or "plotly" in str(data).lower() for kind, data in drawn[0].data.items())
