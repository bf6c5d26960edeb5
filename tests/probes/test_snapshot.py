"""Everything due at a step shares one forward pass and one graph; what does not exist says why."""

import pytest
import torch
import torch.nn.functional as F
from cases import CASES, dense_hessian
from torch import nn

import trainvitals as tv
from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.registry import matching, registered, select
from trainvitals.probes.bystander import bystander
from trainvitals.probes.measure import take_readings
from trainvitals.probes.snapshot import ModelSnapshot
from trainvitals.probes.subject import make_subject


def subject_of(case, **changes):
    built = case.build()
    arguments = {"loss": built.loss, "forward": None, "train": built.batches, "heldout": built.heldout_batches}
    return built, make_subject(built.model, **(arguments | {"call": "test"} | changes))


class CountingMLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        self.sizes: list[int] = []  # of the batches seen; the bystander puts it back

    def forward(self, x):
        CALLS.append(len(x))
        return self.net(x)


CALLS: list[int] = []
# Passes at other weights, or with a graph of their own, that no other diagnostic could share.
OWN_PASSES = {"sam": 1, "asam": 1, "noise_sensitivity": 16 * 3 * 2, "fisher.top": 1, "flatness.first_order": 1,
              "units.utility.mean": 1,
              "ggn.residual": 1}  # whose Gauss-Newton matrix `ggn.top` and `ggn.trace` share  # fmt: skip
CLASS_PASSES = [6, 7, 7]  # `hessian.per_class`, on the samples of each class
SCALE_PASSES = 10  # `effective_lr` on copies of the model: which weights' scale it does not see


def test_the_full_preset_runs_one_forward_pass_per_probe_and_one_set_of_per_sample_gradients():
    model, x, y = CountingMLP(), torch.randn(20, 4), torch.arange(20) % 3
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    subject = make_subject(
        model, loss=F.cross_entropy, forward=None, train=(x, y), heldout=(x[:7], y[:7]), optimizer=optimizer, call="t"
    )
    CALLS.clear()
    readings = take_readings(subject, select("full"))
    own = sum(OWN_PASSES.values())
    # one vectorised pass over single samples, held-out, train
    assert sorted(CALLS) == sorted([1, 7, *CLASS_PASSES] + [20] * (1 + own + SCALE_PASSES))
    assert sum(r.provenance["forward_passes"] for r in first_parts(readings)) == 2 + own + len(CLASS_PASSES)
    for name, passes in OWN_PASSES.items():
        assert readings[name].provenance["forward_passes"] == passes, name
    assert model.sizes == []


def first_parts(readings):
    return [readings[next(iter(cls.descriptions()))] for cls in matching("full")]


@pytest.mark.parametrize(
    ("names", "passes"),
    [(["weights.norm"], 0), (["oui"], 1), (["oui", "nc", "loss.train"], 1), (["grad.norm", "oui", "hessian.top"], 1)],
)
def test_only_what_is_needed_is_run(names, passes):
    model, x, y = CountingMLP(), torch.randn(20, 4), torch.arange(20) % 3
    subject = make_subject(model, loss=F.cross_entropy, forward=None, train=(x, y), call="t")
    CALLS.clear()
    take_readings(subject, select(names))
    assert len(CALLS) == passes


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_loss_outputs_gradient_and_products_agree_with_plain_torch(case):
    built, subject = subject_of(case)
    x, y = built.batch
    H = dense_hessian(built.model, built.loss, built.batch)
    parameters = [p for p in built.model.parameters() if p.requires_grad]
    expected = torch.autograd.grad(built.loss(built.model(x), y), parameters, materialize_grads=True)
    for names in (["hessian.top", "grad.norm"], ["grad.norm"]):  # gradient on the shared graph, and on its own
        with bystander(subject.model):
            snapshot = ModelSnapshot(subject, {d.name: d for d in select(names)})
            torch.testing.assert_close(list(snapshot.gradient.values()), list(expected))
            assert snapshot.train.loss == pytest.approx(built.loss(built.model(x), y).item(), rel=1e-10)
            torch.testing.assert_close(snapshot.train.outputs, built.model(x).detach())
            if "hessian.top" in names:
                v = torch.randn(len(H), dtype=H.dtype)
                torch.testing.assert_close(snapshot.hessian @ v, H @ v)


def test_what_does_not_exist_says_why():
    _, subject = subject_of(CASES[0], heldout=None)
    with bystander(subject.model):
        snapshot = ModelSnapshot(subject, {})
        for attribute, reason in (
            ("heldout", "heldout="), ("optimizer", "no optimizer"), ("trajectory", "training steps"),
            ("initial_parameters", "start of the run"),
        ):  # fmt: skip
            with pytest.raises(Missing, match=reason):
                getattr(snapshot, attribute)


def test_shared_work_is_done_once_and_its_reason_is_repeated():
    _, subject = subject_of(CASES[0])
    calls = []

    def undefined(snapshot):
        calls.append(1)
        raise Missing("because")

    snapshot = ModelSnapshot(subject, {})
    for _ in range(2):
        with pytest.raises(Missing, match="because"):
            snapshot.once(undefined)
    assert len(calls) == 1


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_every_metric_is_a_number_or_says_why_and_repeats(case):
    built = case.build(torch.float32)
    optimizer = torch.optim.SGD((p for p in built.model.parameters() if p.requires_grad), 0.1, momentum=0.9)

    def once():
        return tv.measure(
            built.model, loss=built.loss, batch=built.batches, heldout=built.heldout_batches, optimizer=optimizer,
            what=list(registered()),
        )  # fmt: skip

    first, second = once(), once()
    assert set(first) == {name for cls in registered().values() for name in cls.descriptions()}
    for name, reading in first.items():
        assert (reading.value is None) == (reading.missing is not None), name
        assert "failed with" not in (reading.missing or ""), (name, reading.missing)
        assert reading.definition.startswith(name)
        assert reading.provenance["mode"] == "eval"
        if reading.value is not None:
            assert reading.value == pytest.approx(second[name].value, rel=1e-9), name
            assert len(reading.keys) in (0, len(reading.value) if hasattr(reading.value, "__len__") else 0), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_are_probed_in_float32_and_stay_half(dtype):
    built = CASES[1].build(torch.float32)
    x, y = built.batch
    half = CASES[1].build(torch.float32).model.to(dtype)
    reading = tv.measure(half, loss=built.loss, batch=(x.to(dtype), y), what=["loss.train", "hessian.top"])
    reference = tv.measure(built.model, loss=built.loss, batch=(x, y), what=["loss.train", "hessian.top"])
    assert {p.dtype for p in half.parameters()} == {dtype}
    assert reading["loss.train"].provenance["dtype"] == "float32"
    assert reading["loss.train"].value == pytest.approx(reference["loss.train"].value, rel=2e-2)
    assert reading["hessian.top"].value[0] == pytest.approx(reference["hessian.top"].value[0], rel=2e-2)


def test_a_loss_that_is_no_mean_of_samples_has_no_per_sample_metrics():
    built = CASES[0].build()
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([5.0, 1.0, 0.1]).double())
    readings = tv.measure(built.model, loss=weighted, batch=built.batch, what=["grad.cosine", "loss.train"])
    assert "is not the mean of its samples' losses" in readings["grad.cosine"].missing
    assert readings["loss.train"].missing is None
