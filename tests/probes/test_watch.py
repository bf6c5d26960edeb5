"""Watching: steps counted, points written, hooks taken off, bad input refused before training starts."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainvitals as tv
from trainvitals.diagnostics.registry import registered
from trainvitals.schema import Status


def make():
    torch.manual_seed(0)
    x, y = torch.randn(30, 4), torch.arange(30) % 3
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    return model, torch.optim.SGD(model.parameters(), 0.1, momentum=0.9), x, y


def steps(model, optimizer, x, y, count: int) -> None:
    for _ in range(count):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


def num_hooks(model, optimizer) -> int:
    return (
        len(optimizer._optimizer_step_post_hooks)
        + len(optimizer._optimizer_step_pre_hooks)
        + sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    )


def test_a_context_counts_steps_and_follows_every(tmp_path):
    model, optimizer, x, y = make()
    with tv.watch(
        model, optimizer, loss=F.cross_entropy, train=(x, y), heldout=(x, y), store=tmp_path, name="small",
        probes=["weights.norm", "gap", "hessian.top"], every={"hessian": 5, "gap": tv.at_steps([2, 7])},
    ) as run:  # fmt: skip
        steps(model, optimizer, x, y, 12)
        assert run.step == 12
    with tv.open_run(run.id, store=tmp_path) as read:
        assert read.status is Status.FINISHED
        assert read.last_step == 12  # as far as training got, whether or not anything was due there
        assert read.series("hessian.top")["step"].unique().tolist() == [0, 5, 10]
        assert read.series("gap.loss")["step"].tolist() == [2, 7]
        assert read.series("weights.norm.value")["step"].unique().tolist() == [0, 10]
    assert num_hooks(model, optimizer) == 0


def test_a_plain_watch_is_closed_by_close_and_a_second_close_does_nothing(tmp_path):
    model, optimizer, x, y = make()
    run = tv.watch(model, optimizer, loss=F.cross_entropy, train=(x, y), store=tmp_path, probes="light", every=1)
    steps(model, optimizer, x, y, 3)
    run.close()
    run.close()
    steps(model, optimizer, x, y, 2)
    assert run.step == 3
    assert num_hooks(model, optimizer) == 0
    assert tv.open_run(run.id, store=tmp_path).status is Status.FINISHED


def test_live_points_equal_what_measure_says_of_the_same_weights(tmp_path):
    model, optimizer, x, y = make()
    names = ["oui", "hessian.top", "hessian.trace", "nc1", "grad.cosine", "gap.loss", "stability.ratio"]
    expected = {}
    with tv.watch(
        model, optimizer, loss=F.cross_entropy, train=(x, y), heldout=(x[:9], y[:9]), store=tmp_path,
        probes=names, every=4,
    ) as run:  # fmt: skip
        for step in range(1, 9):
            steps(model, optimizer, x, y, 1)
            if step == 8:
                expected = tv.measure(
                    model, loss=F.cross_entropy, batch=(x, y), heldout=(x[:9], y[:9]), optimizer=optimizer, what=names
                )
    with tv.open_run(run.id, store=tmp_path) as read:
        for name in names:
            series = read.series(name)
            live = series[series["step"] == 8]["value"].to_numpy()
            assert live == pytest.approx(expected[name].value, rel=1e-6), name


def test_a_users_error_passes_through_and_the_run_says_so(tmp_path):
    model, optimizer, x, y = make()
    with pytest.raises(ZeroDivisionError, match="mine"):
        with tv.watch(model, optimizer, loss=F.cross_entropy, train=(x, y), store=tmp_path, probes="light") as run:
            steps(model, optimizer, x, y, 2)
            raise ZeroDivisionError("mine")
    assert num_hooks(model, optimizer) == 0
    with tv.open_run(run.id, store=tmp_path) as read:
        assert read.status is Status.CRASHED
        assert read.events()["message"].str.contains("ZeroDivisionError: mine").any()


def test_ctrl_c_detaches_and_is_no_crash(tmp_path):
    model, optimizer, x, y = make()
    with pytest.raises(KeyboardInterrupt):
        with tv.watch(model, optimizer, loss=F.cross_entropy, train=(x, y), store=tmp_path, probes="light") as run:
            steps(model, optimizer, x, y, 2)
            raise KeyboardInterrupt
    assert num_hooks(model, optimizer) == 0
    with tv.open_run(run.id, store=tmp_path) as read:
        assert read.status is Status.FINISHED
        assert "interrupted" in set(read.events()["kind"])


SCRIPT = """
import torch, trainvitals as tv
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
x = torch.randn(8, 2)
run = tv.watch(model, optimizer, loss=torch.nn.functional.mse_loss, train=(x, x[:, :1]), store={store!r},
               name="left-open", probes="light", every=1)
for _ in range(3):
    optimizer.zero_grad(); model(x).mean().backward(); optimizer.step()
{ending}
"""


@pytest.mark.parametrize(
    ("ending", "status", "kind"),
    [("", Status.FINISHED, "finished"), ("raise RuntimeError('late')", Status.CRASHED, "error")],
)
def test_a_watch_left_open_is_closed_when_the_program_ends(tmp_path, ending, status, kind):
    script = textwrap.dedent(SCRIPT).format(store=str(tmp_path), ending=ending)
    subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": os.getcwd()}, capture_output=True, check=False
    )
    with tv.open_run("left-open", store=tmp_path) as read:
        assert read.status is status
        assert read.series("weights.norm.value")["step"].max() == 3
        assert kind in set(read.events()["kind"])


def test_numbers_of_the_users_own_are_logged_and_nan_is_kept(tmp_path):
    model, optimizer, x, y = make()
    with tv.watch(model, optimizer, loss=F.cross_entropy, train=(x, y), store=tmp_path, probes=["light", "gap"]) as run:
        for _ in range(3):
            steps(model, optimizer, x, y, 1)
            run.log(train_loss=torch.tensor(float("nan")), lr=0.1)
        with pytest.warns(RuntimeWarning, match="expected one number for 'words'"):
            run.log(words="hello")
        with pytest.warns(RuntimeWarning, match="name of your own, got the metric 'gap.loss'"):
            run.log(**{"gap.loss": 1.0})
    with tv.open_run(run.id, store=tmp_path) as read:
        assert read.series("lr")["value"].tolist() == [0.1] * 3
        assert read.series("lr")["step"].tolist() == [1, 2, 3]
        assert read.series("train_loss")["value"].isna().all()
        assert len(read.series("train_loss")) == 3


def test_a_probe_that_fails_is_one_warning_and_a_gap_and_training_goes_on(tmp_path, monkeypatch):
    def fail(self, snapshot):
        raise RuntimeError("broken inside")

    monkeypatch.setattr(registered()["weights.norm"], "measure", fail)
    model, optimizer, x, y = make()
    with pytest.warns(RuntimeWarning, match=r"weights.norm.*broken inside") as caught:
        with tv.watch(
            model, optimizer, loss=F.cross_entropy, train=(x, y), store=tmp_path,
            probes=["weights.norm", "loss.train"], every=1,
        ) as run:  # fmt: skip
            steps(model, optimizer, x, y, 4)
    assert len([w for w in caught if "broken inside" in str(w.message)]) == 1
    with tv.open_run(run.id, store=tmp_path) as read:
        assert read.missing("weights.norm.value")["step"].tolist() == [0, 1, 2, 3, 4]
        assert len(read.series("loss.train")) == 5
        assert read.events()["message"].str.contains("broken inside").sum() == 1


def test_diverged_weights_give_non_finite_losses_as_such(tmp_path):
    model, optimizer, x, y = make()
    with tv.watch(model, optimizer, loss=F.cross_entropy, train=(x, y), store=tmp_path, probes="full", every=1) as run:
        with torch.no_grad():
            model[0].weight.fill_(float("nan"))
        steps(model, optimizer, x, y, 1)
    with tv.open_run(run.id, store=tmp_path) as read:
        series = read.series("loss.train")
        assert series[series["step"] == 1]["value"].isna().all()
        assert len(series) == 2
        assert read.events().query("kind == 'warning'").empty


def test_forward_serves_models_that_are_called_otherwise(tmp_path):
    class TwoInputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, left, right, scale=1.0):
            return {"logits": self.b(torch.relu(self.a(left + right))) * scale}

    def forward(model, batch):
        outputs = model(batch["left"], batch["right"], scale=0.5)["logits"]
        return outputs, F.cross_entropy(outputs, batch["labels"], reduction="none")

    torch.manual_seed(0)
    model = TwoInputs()
    batch = {"left": torch.randn(12, 4), "right": torch.randn(12, 4), "labels": torch.arange(12) % 3}
    found = tv.measure(model, forward=forward, batch=batch, what="full", heldout=batch)
    plain = forward(model, batch)[1].mean().item()
    assert found["loss.train"].value == pytest.approx(plain, rel=1e-6)
    for name in ("oui", "nc1", "hessian.top", "grad.cosine", "accuracy.train"):
        assert found[name].missing is None, (name, found[name].missing)


def test_a_loader_of_augmented_data_is_drawn_once(tmp_path):
    model, optimizer, x, y = make()
    loader = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)
    state = torch.get_rng_state()
    with tv.watch(model, optimizer, loss=F.cross_entropy, train=loader, store=tmp_path, probe_samples=20) as run:
        assert torch.equal(torch.get_rng_state(), state)
    assert tv.open_run(run.id, store=tmp_path).meta["train_probe"]["num_samples"] == 20


def _bad(**changes):
    model, optimizer, x, y = make()
    call = {"model": model, "optimizer": optimizer, "loss": F.cross_entropy, "train": (x, y)} | changes
    return call.pop("model"), call.pop("optimizer"), call


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": (torch.zeros(5, 9), torch.zeros(5).long())}, r"expected a train batch .* shapes"),
        ({"heldout": (torch.zeros(5, 9), torch.zeros(5).long())}, "expected a heldout batch"),
        ({"loss": nn.CrossEntropyLoss(reduction="none")}, "expected a loss that is one number"),
        ({"loss": lambda out, y: 3.0}, r"expected a loss that is one number.*got float"),
        ({"loss": lambda out, y: (out.argmax(1) == y).sum()}, r"expected a loss that is one number.*got int64"),
        ({"train": [(torch.zeros(5, 4), torch.zeros(5).long()), (torch.zeros(5, 9), torch.zeros(5).long())]}, "shapes"),
        ({"train": None}, "expected a train batch, got None"),
        ({"probes": 5}, "expected a preset, names and groups"),
        ({"probes": [3]}, "expected a metric, a group or a preset"),
        ({"probes": {"oui": 100}}, "expected options as a mapping by name, got 100"),
        ({"seed": -1}, "expected a whole number of at least 0"),
        ({"probe_samples": 0}, "expected a whole number of at least 1"),
        ({"model": nn.Linear(4, 3, device="meta")}, "meta device"),
        ({"loss": None}, "expected one of loss= and forward=, got neither"),
        ({"train": DataLoader(TensorDataset(torch.zeros(0, 4), torch.zeros(0)))}, "it gave none"),
        ({"probes": ["hesian.top"]}, "did you mean hessian.top"),
        ({"probes": {"hessian.top": {"kk": 3}}}, r"got 'kk'.*did you mean k"),
        ({"every": 0}, "expected a whole number of steps"),
        ({"every": {"nc7": 1}}, "did you mean nc"),
        ({"model": nn.ReLU()}, "expected a model with trainable parameters"),
        ({"model": lambda x: x}, "expected a torch.nn.Module"),
        ({"model": nn.LazyLinear(3)}, "lazy parameter"),
        ({"optimizer": "sgd"}, "expected a torch.optim.Optimizer"),
        ({"mode": "test"}, "expected mode"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else type(value).__name__,
)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_bad_input_is_refused_in_words_before_anything_is_written(tmp_path, changes, message):
    model, optimizer, call = _bad(**changes)
    folder = tmp_path / "runs"
    watchable = isinstance(model, nn.Module) and isinstance(optimizer, torch.optim.Optimizer)
    before = num_hooks(model, optimizer) if watchable else 0
    with pytest.raises(ValueError, match=message):
        tv.watch(model, optimizer, store=folder, **call)
    assert not list(folder.glob("*"))
    assert not watchable or num_hooks(model, optimizer) == before


def test_a_store_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    model, optimizer, call = _bad()
    with pytest.raises(ValueError, match="expected a"):
        tv.watch(model, optimizer, store=tmp_path / "file", **call)
    assert num_hooks(model, optimizer) == 0


def test_a_layer_that_thaws_is_measured_from_its_weights_at_the_start(tmp_path):
    model, optimizer, x, y = make()
    model[0].requires_grad_(False)
    start = model[0].weight.norm().item()
    with tv.watch(
        model, optimizer, loss=F.cross_entropy, train=(x, y), store=tmp_path, probes=["weights.norm", "update.ratio"],
        every=1,
    ) as run:  # fmt: skip
        steps(model, optimizer, x, y, 2)
        model[0].requires_grad_(True)
        steps(model, optimizer, x, y, 2)
    with tv.open_run(run.path) as read:
        growth = read.series("weights.norm.growth").query("key == '0.weight'")
        assert growth["step"].tolist() == [3, 4]
        assert growth["value"].iloc[-1] == pytest.approx(model[0].weight.norm().item() / start)
        assert read.series("update.ratio").query("key == '0.weight' and step == 4")["value"].item() > 0
        assert read.events().query("kind == 'warning'").empty


def test_a_number_too_large_for_a_float_is_a_warning_and_training_goes_on(tmp_path):
    model, optimizer, x, y = make()
    with tv.watch(model, optimizer, loss=F.cross_entropy, train=(x, y), store=tmp_path, probes="light") as run:
        with pytest.warns(RuntimeWarning, match="expected one number for 'huge'"):
            run.log(huge=10**400)
        steps(model, optimizer, x, y, 1)
