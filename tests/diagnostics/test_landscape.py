import numpy as np
import pytest
import torch
from cases import CASES, dense_hessian
from dense_operators import snapshot_of
from fake_snapshot import FakeSnapshot
from perturbed import gradient_at, loss_at, weights_of
from quadratics import linear_regression
from torch import nn

import trainvitals as tv
from trainvitals.diagnostics.base import Missing, Trajectory
from trainvitals.diagnostics.landscape import Landscape, filter_normalised, orthogonal_part, random_direction

NAME = "landscape"
CASE = {case.name: case for case in CASES}
every_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)


def measured(built, *, seed=0, mode="eval", **options):
    return tv.measure(built.model, loss=built.loss, batch=built.batches, what={NAME: options}, seed=seed, mode=mode)[
        NAME
    ]


def along(built, directions, coordinates):
    """The losses by plain torch on copies of the model."""
    weights, shape = weights_of(built), (len(coordinates),) * len(directions)
    found = np.empty(shape)
    for index in np.ndindex(shape):
        point = [
            w + sum(float(coordinates[i]) * d[k] for i, d in zip(index, directions, strict=True))
            for k, w in enumerate(weights)
        ]
        found[index] = loss_at(built, point)
    return found


@pytest.mark.parametrize("dimensions", [1, 2])
def test_a_quadratic_loss_gives_the_exact_parabola(dimensions):
    built, _, H, g = linear_regression()
    generator = torch.Generator().manual_seed(3)
    d = torch.randn(dimensions, 6, generator=generator, dtype=torch.float64)
    found = measured(built, directions="given", dimensions=dimensions, num_points=7, radius=2.0,
                     vectors=[{"weight": v[None]} for v in d])  # fmt: skip
    centre = built.loss(built.model(built.batch[0]), built.batch[1]).item()
    for index in np.ndindex(found.value.shape):
        step = sum(found.details["coordinates"][i] * v for i, v in zip(index, d, strict=True))
        assert found.value[index] == pytest.approx(centre + float(g @ step + step @ H @ step / 2), rel=1e-12)
    assert found.details["coordinates"].tolist() == pytest.approx([-2, -4 / 3, -2 / 3, 0, 2 / 3, 4 / 3, 2])


@every_case
def test_a_random_slice_equals_the_definition(case):
    built = case.build()
    names = [n for n, p in built.model.named_parameters() if p.requires_grad]
    with snapshot_of(built) as snapshot:
        generator, norm = snapshot.generator(NAME), snapshot.norm_parameters
    weights, directions = weights_of(built), []
    for _ in range(2):
        drawn = [torch.randn(w.shape, generator=generator, dtype=torch.float64) for w in weights]
        for name, w, d in zip(names, weights, drawn, strict=True):
            for f in range(len(w)):  # filter by filter
                d[f] = d[f] / d[f].norm() * w[f].norm() if w.ndim > 1 and name not in norm else 0.0
        directions.append(drawn)
    found = measured(built, dimensions=2, num_points=3, radius=0.5)
    np.testing.assert_allclose(found.value, along(built, directions, [-0.5, 0.0, 0.5]), rtol=1e-9)
    assert all(torch.equal(a, b) for a, b in zip(weights_of(built), weights, strict=True))


@every_case
def test_the_centre_is_the_loss(case):
    built = case.build()
    for options in ({"num_points": 9}, {"dimensions": 2, "num_points": 3}):
        found = measured(built, **options)
        middle = found.value[(options["num_points"] // 2,) * found.value.ndim]
        assert middle == pytest.approx(loss_at(built, weights_of(built)), rel=1e-12)
        assert found.details["centre"] == pytest.approx(middle, rel=1e-12)
        assert found.details["coordinates"][options["num_points"] // 2] == 0.0


@every_case
def test_along_the_top_eigenvectors_of_the_dense_hessian(case):
    built = case.build()
    values, vectors = torch.linalg.eigh(dense_hessian(case.build().model, built.loss, built.batch))
    weights = weights_of(built)
    g = torch.cat([part.reshape(-1) for part in gradient_at(built, weights)])
    directions = []
    for v in (vectors[:, -1], vectors[:, -2]):
        uphill = v if g @ v >= 0 else -v
        directions.append([part.view_as(w) for part, w in zip(uphill.split([w.numel() for w in weights]), weights,
                                                              strict=True)])  # fmt: skip
    found = measured(built, directions="eigenvectors", dimensions=2, num_points=5, radius=0.2, tol=1e-7)
    np.testing.assert_allclose(found.value, along(built, directions, [-0.2, -0.1, 0.0, 0.1, 0.2]), rtol=1e-5)
    np.testing.assert_allclose(found.details["eigenvalues"], [float(values[-1]), float(values[-2])], rtol=1e-5)
    assert found.details["converged"]
    assert found.hvps > 0


def test_the_curvature_of_a_slice_along_an_eigenvector_is_its_eigenvalue():
    found = measured(CASE["mse"].build(), directions="eigenvectors", num_points=3, radius=1e-3)
    low, centre, high = found.value
    assert (high - 2 * centre + low) / 1e-6 == pytest.approx(found.details["eigenvalues"][0], rel=1e-3)
    assert high > low  # uphill


def test_eigenvectors_of_the_top_are_used_when_it_is_due_with_them():
    built = CASE["mlp"].build()
    what = {"hessian.top": {"eigenvectors": True, "tol": 1e-6}, NAME: {"directions": "eigenvectors", "num_points": 5}}
    found = tv.measure(built.model, loss=built.loss, batch=built.batches, what=what)
    alone = measured(built, directions="eigenvectors", num_points=5, tol=1e-6)
    np.testing.assert_allclose(found[NAME].value, alone.value, rtol=1e-4)
    assert found[NAME].details["eigenvalues"][0] == found["hessian.top"].value[0]


def rescaled_relu():
    """The same function with another scale of its layers: ReLU passes a factor through."""
    built = CASE["uneven"].build()
    with torch.no_grad():
        built.model[0].weight *= 8
        built.model[0].bias *= 8
        built.model[2].weight /= 8
    return built


def test_a_filter_normalised_slice_is_blind_to_moving_scale_between_relu_layers():
    one, other = CASE["uneven"].build(), rescaled_relu()
    np.testing.assert_allclose(measured(one).value, measured(other).value, rtol=1e-9)
    with snapshot_of(one) as snapshot:  # and without normalisation it is not: the point of Li et al.
        drawn = random_direction(snapshot.parameters, snapshot.generator(NAME))
    plain = [measured(built, directions="given", vectors=[drawn], radius=0.1).value for built in (one, other)]
    assert np.abs(plain[0] - plain[1]).max() > 0.1 * plain[0].max()


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_filter_normalised_slice_is_blind_to_the_scale_of_filters_before_batchnorm_in_train_mode(mode):
    built, scaled = (CASE["cnn_batchnorm"].build() for _ in range(2))
    factors = torch.tensor([0.25, 1.0, 3.0, 8.0], dtype=torch.float64)
    for case in (built, scaled):
        case.model.train()
        case.model.bn1.eps = 1e-12  # the scale is exactly free without it
    with torch.no_grad():
        scaled.model.conv1.weight *= factors.view(-1, 1, 1, 1)
        scaled.model.conv1.bias *= factors
    slices = [measured(b, mode=mode, num_points=9).value for b in (built, scaled)]
    if mode == "train":
        np.testing.assert_allclose(*slices, rtol=1e-7)
    else:  # running statistics belong to the old scale: another function, so another slice
        assert np.abs(slices[0] - slices[1]).max() > 0.01


def test_batchnorm_statistics_stay_what_they_were_in_both_modes():
    built = CASE["cnn_batchnorm"].build()
    for mode in ("train", "eval"):
        built.model.train()
        before = {name: value.clone() for name, value in built.model.state_dict().items()}
        state = torch.get_rng_state()
        measured(built, mode=mode, num_points=5)
        assert all(torch.equal(value, before[name]) for name, value in built.model.state_dict().items())
        assert torch.equal(torch.get_rng_state(), state)
        assert built.model.training


def test_along_the_last_updates_of_a_watched_run(tmp_path):
    built = CASE["mlp"].build()
    optimizer = torch.optim.SGD(built.model.parameters(), lr=0.5, momentum=0.9)
    x, y = built.batch
    weights = [weights_of(built)]
    options = {NAME: {"directions": "update", "dimensions": 2, "num_points": 5}}
    with tv.watch(built.model, optimizer, loss=built.loss, train=built.batch, store=tmp_path, probes=options,
                  every=3, budget=None) as run:  # fmt: skip
        for _ in range(3):
            optimizer.zero_grad()
            built.loss(built.model(x), y).backward()
            optimizer.step()
            weights.append(weights_of(built))
    with tv.open_run(run.path) as recorded:
        found = recorded.latest()[NAME][1]
        early = recorded.missing(NAME)
    last, before = ([b - a for a, b in zip(*pair, strict=True)] for pair in (weights[2:4], weights[1:3]))
    share = sum(float((a * b).sum()) for a, b in zip(last, before, strict=True))
    share /= sum(float((a * a).sum()) for a in last)
    aside = [b - share * a for a, b in zip(last, before, strict=True)]
    np.testing.assert_allclose(found.value, along(built, [last, aside], found.details["coordinates"]), rtol=1e-5)
    came_from = loss_at(built, weights[2])
    assert found.value[0, 2] == pytest.approx(came_from, rel=1e-5)  # α = −1, β = 0
    assert early["step"].tolist() == [0]


def test_a_plane_needs_two_updates_that_span_one():
    step = {"w": torch.ones(3)}
    snapshot = FakeSnapshot(trajectory=Trajectory(step, step, None, None), parameters=step)
    with pytest.raises(Missing, match="needs the last two training steps"):
        Landscape(directions="update", dimensions=2)._updates(snapshot)
    d = {"w": torch.ones(3)}
    with pytest.raises(Missing, match="span no plane"):
        orthogonal_part({"w": 2 * torch.ones(3)}, d)
    left = orthogonal_part({"w": torch.tensor([1.0, 0, 0])}, d)
    assert float(left["w"] @ d["w"]) == pytest.approx(0, abs=1e-6)


def test_filters_of_zeros_stay_and_biases_and_norms_too():
    w = {"conv": torch.zeros(2, 3, 1, 1), "bias": torch.ones(2), "ln": torch.ones(2, 2)}
    d = filter_normalised({name: torch.ones_like(p) for name, p in w.items()}, w, kept={"ln"})
    assert not any(bool(part.any()) for part in d.values())


def test_every_seed_has_its_own_direction_and_float32_the_same_as_float64():
    one, other = (measured(CASE["mlp"].build(dtype), num_points=5).value for dtype in (torch.float32, torch.float64))
    np.testing.assert_allclose(one, other, rtol=1e-4)
    assert not np.allclose(other, measured(CASE["mlp"].build(), num_points=5, seed=1).value, rtol=1e-3)


def test_what_is_not_finite_on_the_way_stays_and_is_counted():
    built, *_ = linear_regression()
    found = measured(built, directions="given", num_points=3, radius=1e200, vectors=[{"weight": torch.ones(1, 6)}])
    assert found.value[0] == found.value[2] == np.inf
    assert found.details["num_not_finite"] == 2
    assert np.isfinite(found.value[1])


def test_what_is_undefined_says_why():
    built = CASE["mlp"].build()
    assert "successive training steps" in measured(built, directions="update").missing
    assert "direction is zero" in measured(built, directions="given", vectors=[{}]).missing
    single = tv.measure(nn.Linear(1, 1, bias=False), loss=nn.functional.mse_loss, batch=(torch.ones(2, 1),) * 2,
                        what={NAME: {"directions": "eigenvectors", "dimensions": 2}})  # fmt: skip
    assert "one parameter: there are no 2 directions" in single[NAME].missing
    nn.init.constant_(built.model[0].weight, float("nan"))
    assert measured(built).missing == "the loss at the weights is not finite"


@pytest.mark.parametrize(
    ("vector", "words"), [({"0.wieght": torch.ones(12, 6)}, "near names: 0.weight"),
                          ({"0.weight": torch.ones(6, 12)}, r"of shape \(12, 6\), got \(6, 12\)")],
)  # fmt: skip
def test_vectors_that_do_not_fit_say_so(vector, words):
    found = measured(CASE["mlp"].build(), directions="given", vectors=[vector])
    assert words.replace("\\", "") in found.missing


def test_progress_hears_of_every_point():
    built, heard = CASE["mlp"].build(), []
    tv.measure(built.model, loss=built.loss, batch=built.batches, progress=lambda *words: heard.append(words),
               what={NAME: {"dimensions": 2, "num_points": 3}})  # fmt: skip
    assert heard == [(NAME, done, 9) for done in range(1, 10)]


def test_forward_gives_the_same_slice():
    built = CASE["uneven"].build()

    def forward(model, batch):
        z = model(batch[0])
        return z, built.loss(z, batch[1])

    found = tv.measure(built.model, forward=forward, batch=built.batches, what={NAME: {"num_points": 5}})[NAME]
    np.testing.assert_allclose(found.value, measured(built, num_points=5).value, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"directions": "up"}, "directions among"), ({"dimensions": 3}, "dimensions 1 or 2"),
     ({"num_points": 10}, "odd num_points"), ({"radius": 0}, "radius > 0"),
     ({"directions": "given"}, "one vector per dimension"), ({"vectors": [{}]}, "one vector per dimension"),
     ({"tol": 0}, "tol > 0")],
)  # fmt: skip
def test_bad_options_are_told(options, words):
    with pytest.raises(ValueError, match=words):
        measured(CASE["mlp"].build(), **options)
