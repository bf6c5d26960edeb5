"""The examples run as they stand, in well under a minute, and the app opens what they leave."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import trainvitals as tv

CHECKOUT = Path(__file__).parents[2]
PAGES = sorted((CHECKOUT / "trainvitals/views/app_pages").glob("[!_]*.py"))
EXAMPLES = {  # file, without .py: framework, run's name, steps, a number that the framework logged
    "lightning_digits": ("lightning", "lightning-digits", 57, "val_loss"),
    "hugging_face_gpt2": ("transformers", "gpt2-sentences", 60, "eval_loss"),
    "accelerate_digits": ("accelerate", "accelerate-digits", 57, "running_loss"),
    "ignite_digits": ("ignite", "ignite-digits", 57, "running_loss"),
    "fastai_digits": ("fastai", "fastai-digits", 57, "running_loss"),
}
# The tests' torchvision needs another build of torch: the frameworks are to think that there is none.
RUNNER = """
import runpy, sys
sys.path.insert(0, {tests!r})
from without_torchvision import imported
imported({framework!r})
sys.argv = [{script!r}, "--store", {store!r}]
runpy.run_path({script!r}, run_name="__main__")
"""


def test_every_example_is_run_here():
    assert {path.stem for path in (CHECKOUT / "examples").glob("*.py")} == set(EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_runs_and_its_run_opens_in_the_app(example, tmp_path, monkeypatch):
    framework, name, num_steps, logged = EXAMPLES[example]
    if importlib.util.find_spec(framework) is None:
        pytest.skip(f"{framework} is optional")
    code = RUNNER.format(tests=str(CHECKOUT / "tests"), framework=framework, store=str(tmp_path),
                         script=str(CHECKOUT / "examples" / f"{example}.py"))  # fmt: skip
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")]),
                                "OMP_NUM_THREADS": "1"}  # fmt: skip
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False,
                          cwd=tmp_path, env=environment, timeout=240)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    with tv.open_run(name, store=tmp_path) as run:
        assert run.status == "finished"
        assert run.last_step == num_steps
        losses = run.series("loss.train")["value"]
        assert losses.iloc[-1] < 0.7 * losses.iloc[0]
        assert not run.series("loss.heldout").empty
        assert not run.series(logged).empty
        assert run.events().query("kind == 'warning'").empty
        run_id = run.id
    open_every_page(tmp_path, run_id, monkeypatch)


def open_every_page(store, run_id, monkeypatch):
    from streamlit.testing.v1 import AppTest

    monkeypatch.setenv("TRAINVITALS_STORE", str(store))
    app = AppTest.from_file(str(CHECKOUT / "app.py"), default_timeout=60)
    app.query_params["run"] = run_id
    app.run()
    for page in PAGES:
        app.switch_page(str(page.relative_to(CHECKOUT))).run()
        assert not app.exception, page.name
        assert not app.error, page.name
