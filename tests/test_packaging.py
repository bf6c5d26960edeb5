"""The wheel: built, installed into a fresh environment, imported beside a folder called `diagnostics`."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def run(*words: object, folder: Path) -> str:
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([str(word) for word in words], cwd=folder, capture_output=True, text=True, env=clean,
                          check=False, timeout=240)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Build from a copy of what git would hand out, so that nothing is left in the checkout."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", folder=CHECKOUT).splitlines()
    for name in listed:
        if (CHECKOUT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((CHECKOUT / name).read_bytes())
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, folder=source)
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> Path:
    """Return the interpreter of a fresh environment: the wheel is its own, what it needs is borrowed from ours."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, folder=folder)
    site = next(folder.glob("lib/python*/site-packages"))
    install = (sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet")
    run(*install, "--target", site, wheel, folder=folder)
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib"))  # a path behind its own site-packages
    return folder / "bin" / "python"


@pytest.fixture
def crowded(tmp_path) -> Path:
    """Return a user's project that has a `diagnostics` and a `probes` of its own."""
    for name in ("diagnostics", "probes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"MINE = {name!r}\n")
    return tmp_path


def test_the_wheel_holds_the_package_and_nothing_beside_it(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"trainvitals"}
    for expected in ("diagnostics/base.py", "diagnostics/linalg/hvp.py", "probes/watch.py", "commands/demo.py",
                     "views/dashboard.py", "store/writer.py", "py.typed", "sample_runs/01_edge_of_stability.py",
                     "sample_runs/recorded/edge-of-stability/lr-0.5.sqlite.gz"):  # fmt: skip
        assert f"trainvitals/{expected}" in names
    pages = {path.name for path in (CHECKOUT / "trainvitals" / "views" / "app_pages").glob("*.py")}
    assert pages <= {name.split("/")[-1] for name in names if "/app_pages/" in name}


def test_it_measures_beside_a_folder_called_diagnostics(python, crowded):
    code = (
        "import diagnostics, probes, torch, trainvitals as tv\n"
        "assert diagnostics.MINE == 'diagnostics' and probes.MINE == 'probes'\n"
        "import trainvitals.diagnostics.registry as r\n"
        "batch = (torch.randn(9, 4), torch.arange(9) % 3)\n"
        "model, loss = torch.nn.Linear(4, 3), torch.nn.functional.cross_entropy\n"
        "got = tv.measure(model, loss=loss, batch=batch, what=['hessian.top'])\n"
        "print(len(r.registered()), float(got['hessian.top'].value[0]) > 0, tv.__file__)"
    )
    num_diagnostics, is_positive, place = run(python, "-c", code, folder=crowded).split()
    assert int(num_diagnostics) >= 15
    assert is_positive == "True"
    assert Path(place).is_relative_to(python.parent.parent)


def test_the_command_is_installed_and_finds_its_dashboard(python, crowded):
    out = run(python, "-m", "trainvitals", "doctor", folder=crowded)
    assert "WRONG" not in out
    code = (
        "from trainvitals.commands.dashboard_server import serving, free_port\n"
        "import urllib.request\n"
        "with serving('runs', '127.0.0.1', free_port('127.0.0.1', 8700)) as server:\n"
        "    print(urllib.request.urlopen(server.address).status)"
    )
    assert run(python, "-c", code, folder=crowded).strip() == "200"
