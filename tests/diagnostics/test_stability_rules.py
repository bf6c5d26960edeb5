"""torch's own optimisers on quadratics, on both sides of every threshold: they shrink below it and grow above."""

import copy

import pytest
import torch
from cases import CASES
from torch import nn

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.stability_rules import _RULES, WITHOUT_THRESHOLD, stability_rule
from trainvitals.probes.optimizer_view import optimizer_view

BELOW_AND_ABOVE = pytest.mark.parametrize(("factor", "expected"), [(0.98, False), (1.02, True)])
FROZEN = 1 - 1e-15  # a decay of second moments that keeps them as they are
OPTIMIZERS = {
    name: cls
    for name, cls in vars(torch.optim).items()
    if isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer) and cls is not torch.optim.Optimizer
}


class Point(nn.Module):
    """A few parameters, so near 0 that their gradients do not move second moments."""

    def __init__(self, size=1):
        super().__init__()
        torch.manual_seed(0)
        self.x = nn.Parameter(1e-9 * torch.randn(size, dtype=torch.float64).sign())


def rule_of(optimizer, model):
    return stability_rule(optimizer_view(optimizer, model))


def preconditioned(optimizer, model, H):
    """λ1(D (H + W)) over the threshold, dense."""
    view = optimizer_view(optimizer, model)
    rule = stability_rule(view)
    D, W = rule.diagonals(view, {n: p.detach() for n, p in model.named_parameters()})
    root = D.sqrt()
    return float(torch.linalg.eigvalsh(root[:, None] * (rule.sign * H + W.diag()) * root)[-1]) / rule.threshold


def grows(model, optimizer, H, num_steps=1500, as_gradient=lambda g: g):
    """Whether θ grows a thousandfold on θᵀHθ/2; if not, it must be shrinking."""
    flat = lambda: torch.cat([p.detach().reshape(-1) for p in model.parameters()])  # noqa: E731
    start, sizes = float(flat().norm()), []
    for _ in range(num_steps):
        pieces = (H @ flat()).split([p.numel() for p in model.parameters()])
        for p, piece in zip(model.parameters(), pieces, strict=True):
            p.grad = as_gradient(piece.view_as(p))
        optimizer.step()
        sizes.append(float(flat().norm()))
        if sizes[-1] > 1e3 * start:
            return True
    assert max(sizes[num_steps // 2 :]) < 0.9 * max(sizes[: num_steps // 2])
    return False


def moments(**more):
    """State of an optimiser after so many steps that its corrections are over."""
    return {"step": torch.tensor(1e18, dtype=torch.float64), "exp_avg": torch.zeros(1).double(),
            "exp_avg_sq": torch.full((1,), 0.04).double(), **more}  # fmt: skip


BETAS = {"betas": (0.9, FROZEN), "eps": 0.01, "lr": 0.01}
FROZEN_STATES = {
    "sgd": (torch.optim.SGD, {"lr": 0.05}, {}),
    "heavy ball": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9}, {}),
    "dampened": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.8, "dampening": 0.3}, {}),
    "nesterov": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True}, {}),
    "tensor rate": (torch.optim.SGD, {"lr": torch.tensor(0.05, dtype=torch.float64), "momentum": 0.9}, {}),
    "climbing": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "maximize": True}, {}),
    "l2": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.7}, {}),
    "l2, climbing": (torch.optim.SGD, {"lr": 0.05, "weight_decay": 0.7, "maximize": True}, {}),
    "asgd": (torch.optim.ASGD, {"lr": 0.05, "lambd": 0.7, "alpha": 0.0, "weight_decay": 0.4}, {}),
    "adam": (torch.optim.Adam, BETAS, moments()),
    "adam, no momentum": (torch.optim.Adam, BETAS | {"betas": (0.0, FROZEN)}, moments()),
    "adam, l2": (torch.optim.Adam, BETAS | {"weight_decay": 5.0}, moments()),
    "adam, climbing": (torch.optim.Adam, BETAS | {"maximize": True}, moments()),
    "amsgrad": (torch.optim.Adam, BETAS | {"amsgrad": True}, moments(max_exp_avg_sq=torch.full((1,), 0.09).double())),
    "adamw": (torch.optim.AdamW, BETAS | {"weight_decay": 20.0}, moments()),  # ηw = 0.2: the threshold is 10 % lower
    "sparse adam": (torch.optim.SparseAdam, BETAS, moments(step=10**18)),
    "nadam": (torch.optim.NAdam, BETAS, moments(mu_product=torch.zeros(1))),
    "nadam, early": (torch.optim.NAdam, BETAS | {"momentum_decay": 0.0}, moments(mu_product=torch.zeros(1))),
    "nadam, decoupled": (torch.optim.NAdam, BETAS | {"weight_decay": 20.0, "decoupled_weight_decay": True},
                         moments(mu_product=torch.zeros(1))),
    "radam": (torch.optim.RAdam, BETAS, moments()),
    "adamax": (torch.optim.Adamax, BETAS, moments(exp_inf=torch.full((1,), 0.3).double())),
    "rmsprop": (torch.optim.RMSprop, {"lr": 0.01, "alpha": FROZEN, "eps": 0.1, "momentum": 0.9},
                {"step": torch.tensor(1.0), "square_avg": torch.full((1,), 0.04).double(),
                 "momentum_buffer": torch.zeros(1).double()}),
    "centered": (torch.optim.RMSprop, {"lr": 0.01, "alpha": FROZEN, "eps": 0.1, "centered": True},
                 {"step": torch.tensor(1.0), "square_avg": torch.full((1,), 0.04).double(),
                  "grad_avg": torch.full((1,), 0.1).double()}),
    "adagrad": (torch.optim.Adagrad, {"lr": 0.01, "eps": 0.1},
                {"step": torch.tensor(5.0), "sum": torch.full((1,), 0.04).double()}),
    "adadelta": (torch.optim.Adadelta, {"lr": 0.5, "rho": FROZEN, "eps": 1e-3},
                 {"step": torch.tensor(5.0), "square_avg": torch.full((1,), 0.04).double(),
                  "acc_delta": torch.full((1,), 0.01).double()}),
}  # fmt: skip


@BELOW_AND_ABOVE
@pytest.mark.parametrize("name", FROZEN_STATES)
def test_with_its_preconditioner_held_fixed_it_bounces_just_above_the_threshold(name, factor, expected):
    kind, options, state = FROZEN_STATES[name]
    model = Point()
    optimizer = kind(model.parameters(), **options)
    if state:
        optimizer.state[model.x] = copy.deepcopy(state)
    one, two = (preconditioned(optimizer, model, torch.full((1, 1), h).double()) for h in (0.0, 1.0))
    curvature = (factor - one) / (two - one)  # that at which λ1(D (H + W)) is `factor` times the threshold
    as_gradient = (lambda g: g.to_sparse()) if kind is torch.optim.SparseAdam else (lambda g: g)
    H = torch.full((1, 1), curvature, dtype=torch.float64)
    assert grows(model, optimizer, H, as_gradient=as_gradient) is expected


def frozen_adam(kind, groups):
    """An optimiser of several groups whose second moments are random and stay."""
    optimizer = kind(groups, lr=0.01, eps=0.01)
    for p in (p for group in groups for p in group["params"]):
        v = torch.rand(p.shape, generator=torch.Generator().manual_seed(3)).double()
        optimizer.state[p] = moments(exp_avg=torch.zeros_like(p), exp_avg_sq=v)
    return optimizer


class Three(nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        for name in "abc":
            setattr(self, name, nn.Parameter(1e-9 * torch.randn(3, generator=generator, dtype=torch.float64)))


def sgd_groups(model):
    return torch.optim.SGD([
        {"params": [model.a], "lr": 0.1, "momentum": 0.9, "nesterov": True},
        {"params": [model.b], "lr": 0.03, "momentum": 0.5, "weight_decay": 0.4},
        {"params": [model.c], "lr": 0.3},
    ])  # fmt: skip


def adam_groups(model):
    return frozen_adam(torch.optim.AdamW, [
        {"params": [model.a], "betas": (0.95, FROZEN), "weight_decay": 0.0},
        {"params": [model.b], "betas": (0.5, FROZEN), "lr": 0.1, "weight_decay": 8.0},
        {"params": [model.c], "betas": (0.0, FROZEN), "lr": 0.02, "weight_decay": 0.1},
    ])  # fmt: skip


@BELOW_AND_ABOVE
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make", [sgd_groups, adam_groups])
def test_groups_with_unlike_rates_momenta_and_decay_bounce_at_a_ratio_of_one(make, seed, factor, expected):
    A = torch.randn(9, 9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    low, high = 0.0, 1e6
    for _ in range(200):  # the scale of H at which the ratio is the factor; the penalty makes it no straight line
        middle = (low + high) / 2
        model = Three()
        low, high = (middle, high) if preconditioned(make(model), model, middle * A @ A.T) < factor else (low, middle)
    model = Three()
    assert grows(model, make(model), low * A @ A.T) is expected


def trained(make, num_steps):
    """A model after a few steps, its optimiser, and the last update by parameter name."""
    built = next(c for c in CASES if c.name == "mlp").build()
    optimizer = make(built.model.parameters())
    for _ in range(num_steps):
        optimizer.zero_grad()
        x, y = built.batch
        built.loss(built.model(x), y).backward()
        before = {n: p.detach().clone() for n, p in built.model.named_parameters()}
        optimizer.step()
    return built.model, optimizer, {n: p.detach() - before[n] for n, p in built.model.named_parameters()}


MOMENTUM_STEPS = {
    "adam": (lambda p: torch.optim.Adam(p, lr=0.01, eps=0.02), 4),
    "amsgrad": (lambda p: torch.optim.Adam(p, lr=0.01, eps=1e-4, amsgrad=True, betas=(0.8, 0.5)), 4),
    "adamw": (lambda p: torch.optim.AdamW(p, lr=0.01, eps=1e-3, weight_decay=0.0, betas=(0.7, 0.9)), 4),
    "adamax": (lambda p: torch.optim.Adamax(p, lr=0.01, eps=1e-3, betas=(0.7, 0.9)), 4),
    "radam, without second moments": (lambda p: torch.optim.RAdam(p, lr=0.01, betas=(0.7, 0.9)), 4),
    "radam, rectified": (lambda p: torch.optim.RAdam(p, lr=0.01, eps=1e-3, betas=(0.7, 0.9)), 9),
}
PLAIN_STEPS = {
    "rmsprop": (lambda p: torch.optim.RMSprop(p, lr=0.01, eps=0.01), 4),
    "centered": (lambda p: torch.optim.RMSprop(p, lr=0.01, eps=0.01, centered=True), 4),
    "adagrad": (lambda p: torch.optim.Adagrad(p, lr=0.01, lr_decay=0.5, initial_accumulator_value=0.01), 4),
}


def divided(model, optimizer, numerator):
    """−η D times the numerator, as one vector."""
    view = optimizer_view(optimizer, model)
    D, _ = stability_rule(view).diagonals(view, {n: p.detach() for n, p in model.named_parameters()})
    return -0.01 * D * torch.cat([numerator(n, p).reshape(-1) for n, p in model.named_parameters()])


@pytest.mark.parametrize("name", MOMENTUM_STEPS)
def test_the_preconditioner_is_what_torch_divides_its_momentum_by(name):
    model, optimizer, update = trained(*MOMENTUM_STEPS[name])
    found = divided(model, optimizer, lambda n, p: optimizer.state[p]["exp_avg"])
    torch.testing.assert_close(found, torch.cat([u.reshape(-1) for u in update.values()]), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("name", PLAIN_STEPS)
def test_the_preconditioner_is_what_torch_divides_its_gradient_by(name):
    model, optimizer, update = trained(*PLAIN_STEPS[name])
    found = divided(model, optimizer, lambda n, p: p.grad)
    torch.testing.assert_close(found, torch.cat([u.reshape(-1) for u in update.values()]), rtol=1e-7, atol=1e-12)


def test_every_optimiser_of_torch_has_a_threshold_or_a_reason():
    assert OPTIMIZERS.keys() == _RULES.keys() | WITHOUT_THRESHOLD.keys()
    assert not _RULES.keys() & WITHOUT_THRESHOLD.keys()


@pytest.mark.parametrize("name", WITHOUT_THRESHOLD)
def test_an_optimiser_without_a_threshold_says_why(name):
    model = nn.Linear(3, 2, bias=False)
    with pytest.raises(Missing, match=name):
        rule_of(OPTIMIZERS[name](model.parameters()), model)


class SGD(torch.optim.SGD):
    """Somebody's own, under torch's name."""


def test_an_optimiser_that_is_not_of_torch_is_unknown_whatever_its_name():
    model = nn.Linear(3, 2)
    with pytest.raises(Missing, match=r"no stability threshold is known for .*test_stability_rules\.SGD"):
        rule_of(SGD(model.parameters()), model)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.0), "learning rate is 0"),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=1.0), "dampening=1"),
        (lambda p: torch.optim.AdamW(p, lr=1.0, weight_decay=2.5), "alone diverges"),
        (lambda p: torch.optim.SGD([{"params": p[:2], "maximize": True}, {"params": p[2:]}], lr=0.1), "game"),
    ],
)
def test_settings_without_a_threshold_say_why(make, words):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    with pytest.raises(Missing, match=words):
        rule_of(make(list(model.parameters())), model)


@pytest.mark.parametrize("name", [n for n in _RULES if n not in ("SGD", "ASGD")])
def test_before_its_first_step_an_adaptive_optimiser_has_no_preconditioner(name):
    model = nn.Linear(3, 2)
    view = optimizer_view(OPTIMIZERS[name](model.parameters()), model)
    with pytest.raises(Missing, match="no second moments yet"):
        stability_rule(view).diagonals(view, dict(model.named_parameters()))


def test_without_gradient_and_without_eps_an_adaptive_optimiser_has_no_preconditioner():
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), eps=0)
    (0.0 * model(torch.ones(1, 3))).sum().backward()
    optimizer.step()
    view = optimizer_view(optimizer, model)
    with pytest.raises(Missing, match="preconditioner is zero for some parameters"):
        stability_rule(view).diagonals(view, dict(model.named_parameters()))


def test_the_rate_that_a_scheduler_has_set_counts():
    model = Point()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    assert rule_of(optimizer, model).threshold == pytest.approx(20)
    optimizer.step()
    scheduler.step()
    assert rule_of(optimizer, model).threshold == pytest.approx(40)
