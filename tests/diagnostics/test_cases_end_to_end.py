"""Every metric but curvature on the whole case list, through `tv.measure`, against the naive definitions."""

import math
from itertools import pairwise

import pytest
import torch
from cases import CASES
from naive import by_unit_v2, collapse, pair_cosines, pairwise_v1, sample_gradients
from torch import nn

import trainvitals as tv

# Which modules' outputs, after which function, are the activations: by hand, apart from what probes find.
SAME = lambda x: x  # noqa: E731
ACTIVATIONS = {
    "mlp": [("1", SAME), ("3", SAME)],
    "cnn_batchnorm": [("bn1", torch.relu), ("bn2", torch.relu)],
    "layernorm": [("2", SAME)],
    "transformer": [("encoder.linear1", torch.relu)],
    "tied": [("encode", torch.tanh), ("decode", torch.tanh)],
    "frozen": [("1", SAME), ("3", SAME)],
    "mse": [("1", SAME)],
    "uneven": [("1", SAME)],
}
WHAT = ["oui", "oui.layers", "oui.v2", "weights.norm", "grad.norm", "grad.cosine", "grad.coherence",
        "grad.noise_scale", "nc1", "nc2", "nc3", "nc4", "gap", "loss", "accuracy", "overtraining"]  # fmt: skip

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@pytest.fixture(autouse=True)
def slow_path():
    """The stock transformer layer's fast path skips its submodules, so references could not see inside."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(enabled)


def seen(model, x):
    """Return outputs and inputs of every module in one forward pass, in the order of the calls."""
    outputs, inputs = {}, {}
    names = {module: name for name, module in model.named_modules()}

    def keep(module, args, output):
        outputs[names[module]], inputs[names[module]] = output, args[0] if args else None

    handles = [module.register_forward_hook(keep) for module in model.modules()]
    model(x)
    for handle in handles:
        handle.remove()
    return outputs, inputs


def flat(tensor):
    return (tensor > 0).flatten(1)


def expected_readings(case):
    """Return every number by its definition in float64; what is undefined is left out."""
    built = case.build(torch.float64)
    model, (x, y) = built.model.eval(), built.batch
    G = sample_gradients(model, built.loss, x, y).detach()
    weights = [p.detach() for p in model.parameters() if p.requires_grad]
    with torch.no_grad():
        outputs, inputs = seen(model, x)
        losses = {"train": float(built.loss(model(x), y)),
                  "heldout": float(built.loss(model(built.heldout[0]), built.heldout[1]))}  # fmt: skip
        active = [pairwise_v1(flat(function(outputs[name]))) for name, function in ACTIVATIONS[case.name]]
        linear = [n for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d)) and n in outputs]
        order = [name for name in outputs if name in linear]
    trace = float(torch.cov(G.T).trace())
    square = float(G.mean(0).square().sum()) - trace / len(G)
    found = {
        "oui": sum(active) / len(active),
        "oui.layers": active,
        "oui.v2": [by_unit_v2(flat(outputs[name])) for name in order],
        "weights.norm.value": [math.sqrt(float((p**2).sum())) for p in weights],
        "grad.norm": [float(part.norm()) for part in G.mean(0).split([p.numel() for p in weights])],
        "grad.cosine": pair_cosines(G),
        "grad.coherence": len(G) * float(G.mean(0) @ G.mean(0)) / float((G**2).sum(1).mean()),
        "gap.loss": losses["heldout"] - losses["train"],
        "loss.train": losses["train"],
        "loss.heldout": losses["heldout"],
        "overtraining": 1.0,
    }
    if square > 0:
        found["grad.noise_scale"] = trace / square
    if case.is_classifier:
        with torch.no_grad():
            accuracy = {k: float((model(a).argmax(1) == b).double().mean())
                        for k, (a, b) in {"train": built.batch, "heldout": built.heldout}.items()}  # fmt: skip
        found |= {f"accuracy.{k}": v for k, v in accuracy.items()}
        found["gap.accuracy"] = accuracy["heldout"] - accuracy["train"]
        found |= expected_collapse(model, inputs, outputs, y)
    return found


def expected_collapse(model, inputs, outputs, y):
    name, classifier = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear)][-1]
    h, W = inputs[name].numpy(), classifier.weight.detach().numpy()
    found = collapse(h, y.numpy(), W)
    means = torch.stack([inputs[name][y == c].mean(0) for c in range(len(W))])
    nearest = torch.stack([((inputs[name] - m) ** 2).sum(1) for m in means], 1).argmin(1)
    found["nc4"] = float((nearest != outputs[name].argmax(1)).double().mean())  # the network has a bias too
    return {key: value for key, value in found.items() if key.startswith("nc")}


def measured(case, dtype):
    built = case.build(dtype)
    return tv.measure(built.model, loss=built.loss, batch=built.batches, heldout=built.heldout_batches, what=WHAT)


@every_case
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-4), (torch.float32, 1e-2)], ids=["f64", "f32"])
def test_readings_equal_the_definitions(case, dtype, tolerance):
    expected, readings = expected_readings(case), measured(case, dtype)
    floor = 1e-12 if dtype == torch.float64 else 1e-6
    for name, value in expected.items():
        assert readings[name].missing is None, (name, readings[name].missing)
        got = readings[name].value
        got = got.tolist() if isinstance(value, list) else got
        assert got == pytest.approx(value, rel=tolerance, abs=floor), name


@every_case
def test_what_is_undefined_says_why(case):
    expected, readings = expected_readings(case), measured(case, torch.float64)
    reasons = {name: reading.missing for name, reading in readings.items() if name not in expected}
    assert all(reasons.values()), reasons
    assert {"weights.norm.growth", "weights.norm.distance"} <= reasons.keys()
    if not case.is_classifier:
        for name in ("nc1", "nc2.norms_means", "nc3", "nc4", "gap.accuracy", "accuracy.train", "accuracy.heldout"):
            assert "targets are not class labels" in reasons[name]


@every_case
def test_the_same_weights_give_the_same_numbers(case):
    one, other = (measured(case, torch.float32) for _ in range(2))
    for name, reading in one.items():
        assert repr(reading.value) == repr(other[name].value), name
        assert repr(reading.error) == repr(other[name].error), name


def test_one_class_gives_reasons_and_the_other_numbers():
    built = CASES[0].build()
    x, y = built.batch
    readings = tv.measure(built.model, loss=built.loss, batch=(x[y == 0], y[y == 0]), what=["nc", "oui", "grad.cosine"])
    for name in ("nc1", "nc2.norms_means", "nc2.angles_weights", "nc3", "nc4"):
        assert readings[name].missing == "only one class in the probe batch"
    assert readings["oui"].missing is None
    assert readings["grad.cosine"].missing is None


def test_growth_and_distance_come_from_a_reference():
    built = CASES[0].build()
    reference = {name: 2 * p.detach() for name, p in built.model.state_dict().items()}
    readings = tv.measure(built.model, loss=built.loss, batch=built.batch, what=["weights.norm"],
                          options={"weights.norm": {"reference": reference}})  # fmt: skip
    assert readings["weights.norm.growth"].value.tolist() == pytest.approx([0.5] * 6)
    assert readings["weights.norm.distance"].value.tolist() == pytest.approx(readings["weights.norm.value"].value)


def watched_steps(tmp_path, num_steps):
    """Watch plain training with momentum, keep its gradients and weights by hand, and return both."""
    built = CASES[0].build()
    optimizer = torch.optim.SGD(built.model.parameters(), lr=0.1, momentum=0.9)
    x, y = built.batch
    weights, gradients = [snapshot_of(built.model)], []
    with tv.watch(built.model, optimizer, loss=built.loss, train=built.batch, heldout=built.heldout, store=tmp_path,
                  probes=["grad.successive", "update.ratio", "weights.norm", "overtraining"],
                  every=num_steps, budget=None) as run:  # fmt: skip
        for step in range(num_steps):
            pick = torch.arange(step, len(x), 2)
            optimizer.zero_grad()
            built.loss(built.model(x[pick]), y[pick]).backward()
            gradients.append({n: p.grad.clone() for n, p in built.model.named_parameters() if p.grad is not None})
            optimizer.step()
            weights.append(snapshot_of(built.model))
    return run.path, weights, gradients


def snapshot_of(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def joined(tensors):
    return torch.cat([t.reshape(-1) for t in tensors.values()])


def test_what_training_steps_did_equals_copies_taken_by_hand(tmp_path):
    path, weights, gradients = watched_steps(tmp_path, 4)
    updates = [{n: b[n] - a[n] for n in a} for a, b in pairwise(weights)]
    run = tv.open_run(path)
    latest = {name: reading for name, (step, reading) in run.latest().items() if step == 4}
    run.close()
    for part, (one, two) in {"gradient": gradients[-2:], "update": updates[-2:]}.items():
        cosine = torch.nn.functional.cosine_similarity(joined(one), joined(two), dim=0)
        assert latest[f"grad.successive.{part}"].value == pytest.approx(float(cosine), rel=1e-6)
    ratios = [float(updates[-1][n].norm() / weights[-2][n].norm()) for n in weights[0]]
    assert latest["update.ratio"].value.tolist() == pytest.approx(ratios, rel=1e-5)
    growth = [float(weights[-1][n].norm() / weights[0][n].norm()) for n in weights[0]]
    assert latest["weights.norm.growth"].value.tolist() == pytest.approx(growth, rel=1e-5)
    distance = [float((weights[-1][n] - weights[0][n]).norm()) for n in weights[0]]
    assert latest["weights.norm.distance"].value.tolist() == pytest.approx(distance, rel=1e-5)
    assert latest["overtraining"].details["best_step"] in (0, 4)


def test_before_the_first_step_what_needs_steps_says_so(tmp_path):
    path, _, _ = watched_steps(tmp_path, 1)
    run = tv.open_run(path)
    for name in ("grad.successive.gradient", "grad.successive.update", "update.ratio"):
        assert "no training step" in run.missing(name).set_index("step").loc[0, "reason"]
    assert "only one was recorded" in run.missing("grad.successive.update").set_index("step").loc[1, "reason"]
    run.close()
