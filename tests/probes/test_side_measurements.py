"""`watch(where="side")`: the numbers of inline, a training that does not notice, and what is said when it fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trainvitals as tv
from trainvitals.probes.side import offloaded
from trainvitals.schema import Status

PATIENT = {"close_seconds": 240.0, "num_waiting": 8, "niceness": 0}  # machines that test are busy


def make():
    torch.manual_seed(0)
    x, y = torch.randn(30, 4), torch.arange(30) % 3
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
    return model, torch.optim.Adam(model.parameters(), 0.01), x, y


def step(model, optimizer, x, y) -> float:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.item()


def wait_for(condition, seconds: float = 120.0) -> None:
    stop = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < stop, "waited in vain"
        time.sleep(0.02)


def link_of(run):
    return run._side._link


def test_a_killed_process_is_one_warning_and_measuring_goes_on_inline(tmp_path):
    model, optimizer, x, y = make()
    loss = lambda out, target: F.cross_entropy(out, target)  # noqa: E731 - of no module: it travels by its code
    with pytest.warns(RuntimeWarning, match=r"got its end by signal 9 at step \d+; .* goes on"):  # noqa: PT031
        with tv.watch(
            model, optimizer, loss=loss, train=(x, y), heldout=(x, y), store=tmp_path, where=tv.Side(**PATIENT),
            probes=["loss.train", "overtraining", "weights.norm"], every={"weights.norm": 5}, budget=None,
        ) as run:  # fmt: skip
            link = link_of(run)
            for _ in range(200):
                step(model, optimizer, x, y)
            wait_for(lambda: link.num_waiting == 0)
            os.kill(link.pid, signal.SIGKILL)
            wait_for(lambda: link.failure is not None)
            for _ in range(100):
                step(model, optimizer, x, y)
        assert link_of(run) is None
        assert link._process.returncode == -signal.SIGKILL  # no zombie is left
    with tv.open_run(run.path) as read:
        assert read.status is Status.FINISHED
        assert read.events()["kind"].tolist() == ["warning", "finished"]
        assert read.series("loss.train")["step"].tolist() == [0, 50, 100, 150, 200, 250, 300]
        assert read.series("weights.norm.value")["step"].unique().tolist() == list(range(0, 301, 5))
        best = read.series("loss.train")["value"].to_numpy()  # the same samples: held-out loss is train loss
        np.testing.assert_allclose(
            read.series("overtraining")["value"], best / np.minimum.accumulate(best), rtol=1e-6
        )  # what the process had remembered is not forgotten
        assert read.series("probe.dropped")["value"].iloc[-1] == 0


def test_what_cannot_travel_is_one_warning_and_measured_inline(tmp_path):
    model, optimizer, x, y = make()
    lock = threading.Lock()

    def loss(out, target):
        with lock:
            return F.cross_entropy(out, target)

    with pytest.warns(RuntimeWarning, match=r"loss and forward that can be sent .* cannot pickle"):  # noqa: PT031
        with tv.watch(
            model, optimizer, loss=loss, train=(x, y), store=tmp_path, where="side", probes=["loss.train"], every=2
        ) as run:
            assert link_of(run) is None
            for _ in range(4):
                step(model, optimizer, x, y)
    with tv.open_run(run.path) as read:
        assert read.series("loss.train")["step"].tolist() == [0, 2, 4]
        assert read.events()["kind"].tolist() == ["warning", "finished"]


def test_where_is_checked_before_anything_is_written(tmp_path):
    model, optimizer, x, y = make()
    with pytest.raises(ValueError, match=r"expected 'inline', 'side' or a trainvitals\.Side, got 'aside' in where="):
        tv.watch(model, optimizer, loss=F.cross_entropy, train=(x, y), store=tmp_path / "runs", where="aside")
    assert not (tmp_path / "runs").exists()


def test_what_is_measured_inline_alone_starts_no_process(tmp_path):
    model, optimizer, x, y = make()
    with tv.watch(
        model, optimizer, loss=F.cross_entropy, train=(x, y), store=tmp_path, where="side", probes="light"
    ) as run:
        assert link_of(run) is None


@pytest.mark.slow
def test_a_run_measured_beside_training_has_the_numbers_of_inline_in_order(tmp_path):
    runs = {}
    for where in ("inline", tv.Side(**PATIENT)):
        model, optimizer, x, y = make()
        with tv.watch(
            model, optimizer, loss=F.cross_entropy, train=(x, y), heldout=(x[::2], y[::2]), store=tmp_path,
            probes="full", every=2, budget=None, where=where, products="double backward",
        ) as run:  # fmt: skip
            for _ in range(2):
                step(model, optimizer, x, y)
            names = offloaded(run._diagnostics.values())
        runs[str(where)[:4]] = tv.open_run(run.path)
    inline, side = runs["inli"], runs["Side"]
    assert inline.meta["where"] == "inline"
    assert side.meta["where"] == "side"
    assert side.events()["kind"].tolist() == ["finished"]
    assert set(side.names()) - set(inline.names()) == {"probe.dropped"}
    assert set(inline.names()) <= set(side.names())
    assert side.series("probe.dropped")["value"].max() == 0
    for name in inline.names():
        if not name.startswith("probe."):
            ours, theirs = inline.series(name), side.series(name)
            for column in ("step", "key", "value", "error", "converged"):  # bit for bit
                np.testing.assert_array_equal(theirs[column], ours[column], err_msg=f"{name} {column}")
            assert inline.missing(name)["reason"].tolist() == side.missing(name)["reason"].tolist(), name
    assert len(names) > 80
    assert (side.series("hessian.top")["seconds"] > 0).all()


def recorded(kind: str, where, folder) -> list:
    """Return losses and gradients of every step, and all that is left in the end, of a training of this kind."""
    model, optimizer, x, y = make()
    torch.manual_seed(1)
    seen: list = []
    if kind == "lbfgs closure":
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
    if "user hooks" in kind:
        model[0].register_forward_hook(lambda module, args, output: seen.append(float(output.detach().sum())))
        model[4].weight.register_hook(lambda g: g * 1.5)

    def closure():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled="bf16" in kind):
            loss = F.cross_entropy(model(x), y)
        loss.backward()
        seen.append(loss.item())
        return loss

    with tv.watch(
        model, optimizer, loss=F.cross_entropy, train=(x, y), heldout=(x, y), store=folder, where=where, every=1,
        probes=["hessian.top", "oui", "stability", "grad.cosine", "update.ratio", "weights.norm"],
    ):  # fmt: skip
        for _ in range(6):
            if kind == "lbfgs closure":
                optimizer.step(closure)
            else:
                closure()
                optimizer.step()
            seen += [p.grad.clone() for p in model.parameters()]
    seen += [t.clone() for t in (*model.parameters(), *model.buffers())]
    seen += [v for state in optimizer.state_dict()["state"].values() for v in state.values()]
    return [*seen, torch.get_rng_state(), [m.training for m in model.modules()], len(model[0]._forward_hooks)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["user hooks, bf16 autocast", "lbfgs closure"])
def test_training_is_bit_for_bit_what_it_is_when_nobody_looks(tmp_path, kind, monkeypatch):
    watched = recorded(kind, tv.Side(**PATIENT), tmp_path)
    monkeypatch.setattr(tv, "watch", lambda *args, **kwargs: threading.Lock())  # a context that does nothing
    plain = recorded(kind, "inline", tmp_path)
    assert len(watched) == len(plain) > 50
    for index, (one, other) in enumerate(zip(watched, plain, strict=True)):
        same = torch.equal(one, other) if isinstance(one, torch.Tensor) else str(one) == str(other)
        assert same, index
    assert tv.open_run("latest", store=tmp_path).series("hessian.top")["step"].unique().tolist() == list(range(7))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_busy_process_never_holds_training_up_and_what_it_misses_is_counted(tmp_path):
    model, optimizer, x, y = make()
    with tv.watch(
        model, optimizer, loss=F.cross_entropy, train=(x, y), store=tmp_path, probes=["loss.train"], every=10,
        budget=None, where=tv.Side(num_waiting=2, close_seconds=240, niceness=0),
    ) as run:  # fmt: skip
        link = link_of(run)
        wait_for(lambda: link.num_waiting == 0)
        os.kill(link.pid, signal.SIGSTOP)
        if (child := os.fork()) == 0:  # a worker of the trainer's that closes its copy of the run
            run._side.close(0, in_peace=True)
            os._exit(0)
        os.waitpid(child, 0)
        started = time.perf_counter()
        for _ in range(1000):
            step(model, optimizer, x, y)
        assert time.perf_counter() - started < 60  # it stands still for as long as we like
        assert link.num_waiting == 2
        os.kill(link.pid, signal.SIGCONT)
    with tv.open_run(run.path) as read:
        assert read.series("loss.train")["step"].tolist() == [0, 10, 20]
        assert read.series("probe.dropped")["value"].tolist() == [0, 0, 0, 98]
        assert read.last_step == 1000
        assert read.events()["kind"].tolist() == ["finished"]


@pytest.mark.slow
def test_what_a_budget_paces_and_finds_no_room_is_made_up_for(tmp_path):
    model, optimizer, x, y = make()
    with tv.watch(
        model, optimizer, loss=F.cross_entropy, train=(x, y), store=tmp_path, probes=["loss.train", "hessian.top"],
        budget=1.0, where=tv.Side(num_waiting=1, close_seconds=240, niceness=0),
    ) as run:  # fmt: skip
        link = link_of(run)
        wait_for(lambda: link.has_room)
        os.kill(link.pid, signal.SIGSTOP)
        for _ in range(600):
            step(model, optimizer, x, y)
        os.kill(link.pid, signal.SIGCONT)
        wait_for(lambda: link.has_room)
        step(model, optimizer, x, y)
    with tv.open_run(run.path) as read:
        assert read.series("hessian.top")["step"].iloc[-1] == 601  # of no schedule: as soon as there was room
        assert read.series("probe.dropped")["value"].iloc[-1] > 0


@pytest.mark.slow
def test_the_end_of_a_run_waits_no_longer_than_it_was_told(tmp_path):
    model, optimizer, x, y = make()
    with pytest.warns(RuntimeWarning, match="to be done 1 s after the end, got 1 snapshots"):  # noqa: PT031
        with tv.watch(
            model, optimizer, loss=F.cross_entropy, train=(x, y), store=tmp_path, probes=["loss.train"], every=1000,
            where=tv.Side(close_seconds=1),
        ) as run:  # fmt: skip
            link = link_of(run)
            os.kill(link.pid, signal.SIGSTOP)
            started = time.perf_counter()
    assert time.perf_counter() - started < 30
    assert link._process.returncode == -signal.SIGKILL
    with tv.open_run(run.path) as read:
        assert read.status is Status.FINISHED
        assert read.series("probe.dropped")["value"].tolist() == [1]


SCRIPT = """
import sys
import torch, trainvitals as tv
from torch import nn
print("the script runs")

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
    def forward(self, x):
        return self.layer(x) * SCALE

SCALE = 2.0
def loss(out, y):
    return nn.functional.cross_entropy(out, y)

model = Net()
optimizer = torch.optim.SGD(model.parameters(), 0.1)
x, y = torch.randn(30, 4), torch.arange(30) % 3
with tv.watch(model, optimizer, loss=loss, train=(x, y), store=sys.argv[1], probes=["hessian.top"], every=2,
              where=tv.Side(num_waiting=8, close_seconds=240, niceness=0)):
    for _ in range(4):
        optimizer.zero_grad(); loss(model(x), y).backward(); optimizer.step()
"""


def run_script(folder, code: str) -> subprocess.CompletedProcess[str]:
    (folder / "train.py").write_text(textwrap.dedent(code))
    return subprocess.run(
        [sys.executable, "-W", "default", "train.py", "runs"], capture_output=True, text=True, cwd=folder, timeout=280,
        check=True, env=os.environ | {"PYTHONPATH": os.getcwd()},
    )  # fmt: skip


@pytest.mark.slow
def test_a_script_without_a_main_guard_runs_once_and_its_classes_travel(tmp_path):
    done = run_script(tmp_path, SCRIPT)
    assert done.stdout == "the script runs\n"
    assert "Warning" not in done.stderr
    with tv.open_run("latest", store=tmp_path / "runs") as read:
        assert read.series("hessian.top")["step"].unique().tolist() == [0, 2, 4]


@pytest.mark.slow
def test_without_cloudpickle_what_the_script_defines_cannot_travel_and_what_modules_define_can(tmp_path):
    done = run_script(
        tmp_path,
        """
        import pickle, sys
        sys.modules["cloudpickle"] = None
        from torch import nn
        from trainvitals.probes.side_packing import packed, unpacked

        class Net(nn.Linear):
            pass

        try:
            packed(Net(2, 2))
        except pickle.PicklingError as error:
            print(error)
        body, tensors = packed(nn.Linear(2, 2))
        print(unpacked(body, tensors))
        """,
    )
    words = "Net of the script itself, without the package cloudpickle"
    assert done.stdout == f"{words}\nLinear(in_features=2, out_features=2, bias=True)\n"
