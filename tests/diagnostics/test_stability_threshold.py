import numpy as np
import pytest
import torch
from cases import CASES, dense_hessian

import trainvitals as tv
from trainvitals.diagnostics.registry import select
from trainvitals.diagnostics.stability_threshold import stability_rule
from trainvitals.probes.optimizer_view import optimizer_view

CASE = {case.name: case for case in CASES}


def trained(case, make, num_steps=4):
    """A model after a few steps, its optimiser, and the last update by parameter name."""
    built = CASE[case].build()
    built.model.eval()
    optimizer = make(built.model.parameters())
    for _ in range(num_steps):
        optimizer.zero_grad()
        x, y = built.batch
        built.loss(built.model(x), y).backward()
        before = {n: p.detach().clone() for n, p in built.model.named_parameters() if p.requires_grad}
        optimizer.step()
    update = {n: p.detach() - before[n] for n, p in built.model.named_parameters() if p.requires_grad}
    return built, optimizer, update


OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, eps=0.02),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, eps=1e-3, weight_decay=0.1, betas=(0.7, 0.9)),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, eps=0.01),
}


def measured(built, optimizer, what=("stability",), **kwargs):
    return tv.measure(built.model, loss=built.loss, batch=built.batches, what=list(what), optimizer=optimizer, **kwargs)


def dense(built):
    return dense_hessian(built.model, built.loss, built.batch)


@pytest.mark.parametrize(
    ("case", "make"),
    [pytest.param(case, make, id=f"{case.name}-{name}",
                  marks=pytest.mark.slow if case.name == "transformer" and name != "adam" else ())
     for case in CASES for name, make in OPTIMIZERS.items()],
)  # fmt: skip
def test_preconditioned_sharpness_equals_the_dense_one(case, make):
    built, optimizer, _ = trained(case.name, make)
    readings = measured(built, optimizer)
    view = optimizer_view(optimizer, built.model)
    parameters = {n: p.detach() for n, p in built.model.named_parameters() if p.requires_grad}
    diagonal, _ = stability_rule(view).diagonals(view, parameters)
    root = diagonal.sqrt()
    expected = torch.linalg.eigvalsh(root[:, None] * dense(built) * root)[-1].item()
    assert readings["stability.sharpness"].value == pytest.approx(expected, rel=1e-4)
    assert readings["stability.sharpness"].converged
    ratio = expected / readings["stability.threshold"].value
    assert readings["stability.ratio"].value == pytest.approx(ratio, rel=1e-4)


def test_raw_sharpness_is_read_from_the_run_of_hessian_top():
    built, optimizer, _ = trained("mlp", lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9))
    both = measured(built, optimizer, ("hessian.top", "stability"))
    assert both["stability.sharpness"].value == both["hessian.top"].value[0]
    assert both["stability.sharpness"].hvps == 0 or both["hessian.top"].hvps == 0  # one run, whichever came first
    assert both["stability.sharpness"].details["shared_with"] == "hessian.top"
    assert both["stability.threshold"].value == pytest.approx(2 * 1.9 / 0.1)
    alone = measured(built, optimizer)
    assert alone["stability.sharpness"].value == pytest.approx(both["hessian.top"].value[0], rel=1e-5)
    assert alone["stability.sharpness"].hvps > 0


@pytest.mark.parametrize("due", [("stability",), ("hessian.top", "stability")])
def test_coupled_weight_decay_is_added_to_the_hessian(due):
    built, optimizer, _ = trained("mlp", lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.5))
    expected = torch.linalg.eigvalsh(dense(built))[-1].item() + 0.5
    sharpness = measured(built, optimizer, due)["stability.sharpness"]
    assert sharpness.value == pytest.approx(expected, rel=1e-4)
    assert "added to H" in sharpness.details["weight_decay"]


def test_decoupled_weight_decay_stays_out():
    make = {wd: lambda p, wd=wd: torch.optim.AdamW(p, lr=1e-9, weight_decay=wd) for wd in (0.0, 0.5)}
    found = [measured(*trained("mlp", make[wd])[:2])["stability.sharpness"] for wd in (0.0, 0.5)]
    assert found[0].value == pytest.approx(found[1].value, rel=1e-4)
    assert found[0].details["weight_decay"] == "none"
    assert "not in H" in found[1].details["weight_decay"]


def test_groups_with_their_own_rates_and_decay_scale_the_hessian():
    def make(parameters):
        parameters = list(parameters)
        return torch.optim.SGD([
            {"params": parameters[:2], "lr": 0.1, "weight_decay": 0.3},
            {"params": parameters[2:4], "lr": 0.02},
        ])  # the last layer is in no group: it does not move  # fmt: skip

    built, optimizer, _ = trained("mlp", make)
    sizes = [p.numel() for p in built.model.parameters()]
    D = torch.cat([torch.full((n,), d) for n, d in zip(sizes, (1, 1, 0.2, 0.2, 0, 0), strict=True)]).double()
    W = torch.cat([torch.full((n,), w) for n, w in zip(sizes, (0.3, 0.3, 0, 0, 0, 0), strict=True)]).double()
    expected = torch.linalg.eigvals(D[:, None] * (dense(built) + torch.diag(W))).real.max().item()
    readings = measured(built, optimizer, ("hessian.top", "stability"))
    assert readings["stability.sharpness"].value == pytest.approx(expected, rel=1e-4)
    assert readings["stability.threshold"].value == pytest.approx(20)
    assert "H is scaled" in readings["stability.threshold"].details["groups"]


def test_adam_before_its_first_step_has_a_threshold_and_no_sharpness():
    built = CASE["mlp"].build()
    readings = measured(built, torch.optim.Adam(built.model.parameters(), lr=0.001))
    assert readings["stability.threshold"].value == pytest.approx(38_000)
    assert "no second moments yet" in readings["stability.sharpness"].missing
    assert "no second moments yet" in readings["stability.ratio"].missing


def test_without_an_optimiser_all_parts_are_missing():
    built = CASE["mlp"].build()
    for reading in measured(built, None).values():
        assert "no optimizer" in reading.missing


def test_a_zero_preconditioner_is_missing_with_the_reason():
    built, optimizer, _ = trained("mlp", lambda p: torch.optim.Adam(p, eps=0.0))
    optimizer.state[next(built.model.parameters())]["exp_avg_sq"].zero_()
    assert "preconditioner is zero" in measured(built, optimizer)["stability.sharpness"].missing


def test_a_trained_model_settles_at_the_edge():
    # full-batch gradient descent: the ratio climbs to about 1 and hovers there (Cohen et al. 2021)
    built = CASE["mse"].build()
    optimizer = torch.optim.SGD(built.model.parameters(), lr=0.9)
    x, y = built.batch
    for _ in range(2000):
        optimizer.zero_grad()
        built.loss(built.model(x), y).backward()
        optimizer.step()
    assert np.isfinite(built.loss(built.model(x), y).item())
    assert 0.5 < measured(built, optimizer)["stability.ratio"].value < 1.3


def test_bad_options_are_told():
    with pytest.raises(ValueError, match="tol > 0"):
        select({"stability": {"tol": 0.0}})
