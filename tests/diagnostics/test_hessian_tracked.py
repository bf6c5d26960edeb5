import numpy as np
import pytest
import torch
from cases import CASES, dense_hessian
from dense_operators import snapshot_of
from spectra import exact_spectrum, measured

import trainvitals as tv
from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.hessian_tracked import HessianTracked
from trainvitals.diagnostics.registry import select

CASE = {case.name: case for case in CASES}


def read(diagnostic, built):
    with snapshot_of(built) as snapshot:
        return diagnostic.measure(snapshot)


def sharpest(built):
    return float(torch.linalg.eigvalsh(dense_hessian(built.model, built.loss, built.batch))[-1])


@pytest.mark.parametrize("case", [CASE[name] for name in ("frozen", "tied", "mse")], ids=lambda c: c.name)
def test_one_measurement_is_a_cold_start_and_equals_the_dense_hessian(case):
    found = [measured(case.build(), {"hessian.tracked": {"k": 3}})["hessian.tracked"] for _ in range(2)]
    np.testing.assert_allclose(found[0].value, exact_spectrum(case)[::-1][:3], rtol=1e-2)
    assert found[0].converged
    assert found[0].keys == ("λ1", "λ2", "λ3")
    assert found[0].details["start"] == "cold"
    assert (found[0].value == found[1].value).all()


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(
    "name", ["frozen", pytest.param("mlp", marks=pytest.mark.slow), pytest.param("tied", marks=pytest.mark.slow)]
)
def test_through_a_training_each_measurement_is_within_its_tolerance(name, optimizer):
    built, diagnostic = CASE[name].build(), HessianTracked()
    make = {"sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), "adam": lambda p: torch.optim.Adam(p, lr=0.01)}
    steps, errors, num_products = make[optimizer](built.model.parameters()), [], []
    for step in range(101):
        if step % 10 == 0:
            reading = read(diagnostic, built)
            assert reading.details["start"] == ("warm" if step else "cold")
            errors.append(abs(float(reading.value[0]) / sharpest(built) - 1))
            num_products.append(reading.hvps)
        built.model.eval()
        steps.zero_grad()
        built.loss(built.model(built.batch[0]), built.batch[1]).backward()
        steps.step()
    assert np.mean(np.array(errors) <= 1e-2) >= 0.95
    assert max(errors) < 5e-2
    assert np.mean(num_products[1:]) < num_products[0]


def test_the_look_outside_comes_every_so_many_measurements():
    built, diagnostic = CASE["mlp"].build(), HessianTracked(look_every=3)
    found = [read(diagnostic, built) for _ in range(8)]
    looked = [i for i, reading in enumerate(found) if reading.details["outside"] != "not looked for"]
    assert looked == [3, 6]
    assert found[1].details["overlap"] == pytest.approx(1, abs=2e-2)
    assert found[3].hvps > found[2].hvps
    assert found[2].hvps < found[0].hvps


def test_parameters_of_another_shape_start_cold():
    diagnostic = HessianTracked()
    for name in ("mlp", "transformer", "mlp"):
        reading = read(diagnostic, CASE[name].build())
        assert reading.details["start"] == "cold"
        assert "overlap" not in reading.details
    assert read(diagnostic, CASE["mlp"].build()).details["start"] == "warm"


def test_an_overflowed_loss_is_missing_and_the_next_measurement_starts_cold():
    built, broken, diagnostic = CASE["mlp"].build(), CASE["mlp"].build(), HessianTracked()
    with torch.no_grad():
        next(broken.model.parameters()).fill_(float("nan"))
    read(diagnostic, built)
    with pytest.raises(Missing, match="not finite"):
        read(diagnostic, broken)
    assert read(diagnostic, built).details["start"] == "cold"


def test_fewer_parameters_than_eigenvalues_asked_for():
    batch = (torch.eye(2).double(), torch.zeros(2, 1).double())
    model = torch.nn.Linear(2, 1, bias=False).double()
    found = tv.measure(model, loss=torch.nn.functional.mse_loss, batch=batch, what={"hessian.tracked": {"k": 5}})
    np.testing.assert_allclose(found["hessian.tracked"].value, [1, 1])
    assert found["hessian.tracked"].keys == ("λ1", "λ2")


@pytest.mark.parametrize("options", [{"k": 0}, {"tol": 0.0}, {"look_every": 0}, {"max_iterations": 2}])
def test_bad_options_are_told_before_training(options):
    with pytest.raises(ValueError, match="look_every ≥ 1"):
        select({"hessian.tracked": options})
