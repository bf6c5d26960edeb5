import pytest
import torch
from cases import CASES
from perturbed import gradient_at, loss_at, norm, weights_of
from quadratics import linear_regression
from torch import nn

import trainvitals as tv

every_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)


def measured(built, what, **changes):
    arguments = {"loss": built.loss, "batch": built.batches} | changes
    return tv.measure(built.model, what=what, **arguments)


def test_sam_of_a_quadratic_is_slope_times_rho_plus_half_the_curvature():
    built, _, H, g = linear_regression()
    for rho in (0.05, 2.0):
        found = measured(built, {"sam": {"rho": rho}})["sam"]
        assert found.value == pytest.approx(float(rho * g.norm() + rho**2 / 2 * g @ H @ g / (g @ g)), rel=1e-10)
        assert found.details == {"rho": rho, "num_steps": 1}


def test_asam_of_a_quadratic():
    built, theta, H, g = linear_regression()
    T = theta.abs() + 0.01
    step = 0.5 * T**2 * g / (T * g).norm()
    found = measured(built, ["asam"])["asam"]
    assert found.value == pytest.approx(float(g @ step + step @ H @ step / 2), rel=1e-10)


@every_case
@pytest.mark.parametrize("num_steps", [1, 3])
def test_sam_equals_the_definition(case, num_steps):
    built = case.build()
    start = point = weights_of(built)
    for _ in range(num_steps):
        g = gradient_at(built, point)
        point = [p + 0.05 / num_steps * d / norm(g) for p, d in zip(point, g, strict=True)]
    expected = loss_at(built, point) - loss_at(built, start)
    found = measured(built, {"sam": {"num_steps": num_steps}})["sam"]
    assert found.value == pytest.approx(expected, rel=1e-9)
    assert all(torch.equal(a, b) for a, b in zip(weights_of(built), start, strict=True))


@every_case
def test_asam_equals_the_definition(case):
    built = case.build()
    start, g = weights_of(built), gradient_at(built, weights_of(built))
    T = [p.abs() + 0.01 for p in start]
    size = norm([t * d for t, d in zip(T, g, strict=True)])
    point = [p + 0.5 * t**2 * d / size for p, t, d in zip(start, T, g, strict=True)]
    found = measured(built, ["asam"])["asam"]
    assert found.value == pytest.approx(loss_at(built, point) - loss_at(built, start), rel=1e-9)
    assert all(torch.equal(a, b) for a, b in zip(weights_of(built), start, strict=True))


SUBSETS = {"norm": ("cnn_batchnorm", lambda name: name.startswith("bn")), "head.*": ("tied", lambda n: "head" in n)}


@pytest.mark.parametrize("only", SUBSETS)
@pytest.mark.parametrize("num_steps", [1, 3])
def test_sam_of_a_subset_moves_it_alone(only, num_steps):
    name, belongs = SUBSETS[only]
    built = next(c for c in CASES if c.name == name).build()
    moving = [belongs(n) for n, p in built.model.named_parameters() if p.requires_grad]
    start = point = weights_of(built)
    for _ in range(num_steps):
        g = [d * m for d, m in zip(gradient_at(built, point), moving, strict=True)]
        point = [p + 0.05 / num_steps * d / norm(g) for p, d in zip(point, g, strict=True)]
    found = measured(built, {"sam": {"num_steps": num_steps, "only": only}})["sam"]
    assert found.value == pytest.approx(loss_at(built, point) - loss_at(built, start), rel=1e-9)
    assert found.value < measured(built, {"sam": {"num_steps": num_steps}})["sam"].value
    assert found.details["only"] == only


@pytest.mark.parametrize("only", SUBSETS)
def test_asam_of_a_subset_moves_it_alone(only):
    name, belongs = SUBSETS[only]
    built = next(c for c in CASES if c.name == name).build()
    moving = [belongs(n) for n, p in built.model.named_parameters() if p.requires_grad]
    start, g = weights_of(built), gradient_at(built, weights_of(built))
    T = [(p.abs() + 0.01) * m for p, m in zip(start, moving, strict=True)]
    size = norm([t * d for t, d in zip(T, g, strict=True)])
    point = [p + 0.5 * t**2 * d / size for p, t, d in zip(start, T, g, strict=True)]
    found = measured(built, {"asam": {"only": only}})["asam"]
    assert found.value == pytest.approx(loss_at(built, point) - loss_at(built, start), rel=1e-9)


@pytest.mark.parametrize("name", ["sam", "asam"])
def test_a_subset_that_is_empty_says_so(name):
    built = CASES[0].build()
    assert "no normalisation layers" in measured(built, {name: {"only": "norm"}})[name].missing
    assert "near names: 4.weight" in measured(built, {name: {"only": "4.wieght"}})[name].missing


@pytest.mark.parametrize("name", ["sam", "asam"])
def test_float32_agrees_with_float64(name):
    one, other = (measured(CASES[0].build(dtype), [name])[name].value for dtype in (torch.float32, torch.float64))
    assert one == pytest.approx(other, rel=1e-3)


def test_asam_without_floor_is_blind_to_moving_scale_between_layers_and_sam_is_not():
    built = CASES[7].build()  # ReLU between the two layers
    scaled = CASES[7].build()
    with torch.no_grad():
        scaled.model[0].weight *= 4
        scaled.model[0].bias *= 4
        scaled.model[2].weight /= 4
    what = {"sam": {}, "asam": {"eta": 0.0}}
    one, other = measured(built, what), measured(scaled, what)
    assert one["asam"].value == pytest.approx(other["asam"].value, rel=1e-9)
    assert one["sam"].value != pytest.approx(other["sam"].value, rel=0.05)


@pytest.mark.parametrize("name", ["sam", "asam"])
def test_a_zero_gradient_says_so(name):
    model = nn.Linear(3, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    found = tv.measure(model, loss=nn.functional.mse_loss, batch=(torch.eye(3).double(), torch.zeros(3, 1).double()),
                       what=[name])[name]  # fmt: skip
    assert found.missing == "the gradient of the train probe is zero: there is no direction of ascent"


@pytest.mark.parametrize("name", ["sam", "asam"])
def test_an_overflow_uphill_says_so(name):
    built = linear_regression()[0]
    found = measured(built, {name: {"rho": 1e160}})[name]
    assert found.missing == "the loss at the perturbed weights is not finite"


@pytest.mark.parametrize("name", ["sam", "asam"])
def test_forward_gives_the_same_number(name):
    built = CASES[7].build()

    def forward(model, batch):
        z = model(batch[0])
        return z, built.loss(z, batch[1])

    found = measured(built, [name], loss=None, forward=forward)[name]
    assert found.value == pytest.approx(measured(built, [name])[name].value, rel=1e-12)


@pytest.mark.parametrize(("name", "options"), [("sam", {"rho": 0}), ("sam", {"num_steps": 0}), ("asam", {"eta": -1})])
def test_bad_options_are_told(name, options):
    with pytest.raises(ValueError, match="expected rho > 0"):
        measured(CASES[0].build(), {name: options})
