import random

import numpy as np
import pytest
import torch
from cases import CASES, dense_hessian

import trainvitals as tv

CASE = {case.name: case for case in CASES}
ENGINE = {"engine": "pyhessian"}


def measured(built, options, **kwargs):
    return tv.measure(built.model, loss=built.loss, batch=built.batches, what=options, **kwargs)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_agrees_with_the_dense_hessian_on_the_largest_in_size(case, dtype):
    exact = case.build()
    spectrum = np.linalg.eigvalsh(dense_hessian(exact.model, exact.loss, exact.batch).numpy())
    options = {"hessian.top": {**ENGINE, "k": 1, "tol": 1e-7, "max_iterations": 3000}}
    found = measured(case.build(dtype), options)["hessian.top"]
    largest = spectrum[np.abs(spectrum).argmax()]
    assert found.value[0] == pytest.approx(largest, rel=1e-2)
    assert np.abs(spectrum - found.value[0]).min() <= found.error[0] + 1e-5  # its residual is ours, and bounds
    assert "in size" in found.details["order"]
    assert found.hvps > 1


def test_both_engines_agree_where_the_top_is_the_largest_in_size():
    built = CASE["frozen"].build()  # λ1..λ3 are larger than |λ_P|
    native = measured(built, {"hessian.top": {"k": 3}})["hessian.top"]
    peer = measured(built, {"hessian.top": {**ENGINE, "k": 3, "tol": 1e-6, "max_iterations": 2000}})["hessian.top"]
    np.testing.assert_allclose(peer.value, native.value, rtol=1e-2)
    assert peer.keys == native.keys


@pytest.mark.parametrize("sizes", [(30,), (12, 12, 6)], ids=["one batch", "uneven batches"])
def test_trace_agrees_within_the_errors(sizes):
    # least squares: no sample zᵀHz is negative; where the running mean is, PyHessian stops at once
    x = torch.randn(30, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batches = [(part, torch.zeros(len(part), 2).double()) for part in x.split(sizes)]
    options = {"hessian.trace": {**ENGINE, "tol": 1e-12, "max_probes": 200}}
    found = tv.measure(torch.nn.Linear(6, 2, bias=False).double(), batch=batches, what=options,
                       loss=torch.nn.functional.mse_loss)["hessian.trace"]  # fmt: skip
    exact = float(2 * x.square().sum() / 30)
    assert found.hvps == found.details["num_probes"] == 200
    assert abs(found.value - exact) <= 3 * found.error


def test_density_is_missing_with_the_reason():
    reading = measured(CASE["mlp"].build(), {"hessian.density": ENGINE})["hessian.density"]
    assert "torch.eig" in reading.missing


def test_changes_nothing_outside_and_prints_nothing(capsys):
    built = CASE["cnn_batchnorm"].build(torch.float32)
    built.model.train()
    built.loss(built.model(built.batch[0]), built.batch[1]).backward()
    state = {k: v.clone() for k, v in built.model.state_dict().items()}
    grads = [p.grad.clone() for p in built.model.parameters()]
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(), torch.get_default_dtype()
    options = {"hessian.top": {**ENGINE, "k": 2}, "hessian.trace": {**ENGINE, "tol": 0.1}}
    first = measured(built, options)
    after = torch.get_rng_state(), np.random.get_state()[1], random.getstate(), torch.get_default_dtype()
    assert torch.equal(before[0], after[0])
    assert (before[1] == after[1]).all()
    assert before[2:] == after[2:]
    assert built.model.training
    assert all(torch.equal(v, built.model.state_dict()[k]) for k, v in state.items())
    assert all(torch.equal(g, p.grad) for g, p in zip(grads, built.model.parameters(), strict=True))
    assert capsys.readouterr() == ("", "")
    torch.manual_seed(5)  # the user's seed does not enter
    assert (measured(built, options)["hessian.top"].value == first["hessian.top"].value).all()


def test_what_it_cannot_measure_is_missing_with_the_reason():
    built = CASE["mlp"].build()
    options = {"hessian.top": ENGINE}
    readings = tv.measure(
        built.model, batch=built.batch, what=options,
        forward=lambda model, batch: (out := model(batch[0]), built.loss(out, batch[1])),
    )  # fmt: skip
    assert "forward=" in readings["hessian.top"].missing
    assert "eval mode only" in measured(built, options, mode="train")["hessian.top"].missing
    built.model.register_parameter("unused", torch.nn.Parameter(torch.zeros(2).double()))
    assert "PyHessian failed" in measured(built, options)["hessian.top"].missing
