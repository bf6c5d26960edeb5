"""The example package of the docs, installed: discovered by its entry point, measured, shown in the dashboard."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "docs" / "example_diagnostic"
PAGE = "trainvitals/views/app_pages/do_the_gradients_agree.py"

RECORD = """
import sys, torch, trainvitals as tv
torch.manual_seed(0)
model, x, y = torch.nn.Linear(5, 3), torch.randn(8, 5), torch.randn(8, 3)
optimizer, loss = torch.optim.SGD(model.parameters(), lr=0.1), torch.nn.functional.mse_loss
with tv.watch(model, optimizer, loss=loss, train=(x, y), store=sys.argv[1], every=1,
              probes={"example.sparsity": {"fraction": 0.5}}) as run:
    for _ in range(3):
        optimizer.zero_grad(); loss(model(x), y).backward(); optimizer.step()
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The environment of a program that has the example installed, in a folder of its own; nothing is downloaded."""
    folder = tmp_path_factory.mktemp("installed")
    source = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("source") / "example")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
               "--disable-pip-version-check", "--target", folder, source]  # fmt: skip
    subprocess.run(list(map(str, command)), check=True, timeout=120)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), "OMP_NUM_THREADS": "1"}


def ran(environment, *command, cwd=None):
    done = subprocess.run(
        [sys.executable, *map(str, command)], env=environment, capture_output=True, text=True, timeout=120, cwd=cwd
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_stands_in_the_catalogue_of_the_command_line(environment, tmp_path):
    text = ran(environment, "-m", "trainvitals", "metrics", "example.sparsity", cwd=tmp_path)
    assert "Gradient sparsity" in text
    assert "share of entries" in text


def test_its_own_tests_pass(environment, tmp_path):
    ran(environment, "-m", "pytest", "-q", "-p", "no:cacheprovider", EXAMPLE / "tests", cwd=tmp_path)


def test_a_run_records_it_and_the_dashboard_shows_it_without_the_package(environment, tmp_path, monkeypatch):
    script = tmp_path / "record.py"
    script.write_text(RECORD)
    ran(environment, script, tmp_path / "runs", cwd=tmp_path)
    monkeypatch.setenv("TRAINVITALS_STORE", str(tmp_path / "runs"))
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run().switch_page(PAGE).run()
    assert not app.exception
    shown = "\n".join(str(part.value) for part in [*app.markdown, *app.caption]).replace("\\", "")
    assert "**Gradient sparsity**" in shown
    assert "Share of gradient entries that are small beside the largest" in shown
    assert "An example of TrainVitals' documentation" in shown
    assert len(app.get("plotly_chart")) == 1
