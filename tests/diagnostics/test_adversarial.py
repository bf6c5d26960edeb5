"""Attacks against loops over samples and against linear networks, whose worst inputs are known."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import CASES
from torch import nn

import trainvitals as tv
from trainvitals.diagnostics.adversarial import Adversarial, Ball, fgsm, linearity_errors, pgd
from trainvitals.diagnostics.input_loss import InputLoss

EPSILON = 0.4


def input_loss(model, loss, x, y):
    def outputs_and_losses(inputs):
        z = model(inputs).detach()
        return z, torch.stack([loss(z[i : i + 1], y[i : i + 1]) for i in range(len(z))]).double()

    return InputLoss(len(x), x, y, model, lambda inputs: loss(model(inputs), y), outputs_and_losses)


def measured(model, loss, batch, heldout=None, **options):
    options = {"epsilon": EPSILON} | options
    found = tv.measure(model, loss=loss, batch=batch, heldout=heldout, what={"adv": options})
    return {name.removeprefix("adv."): reading for name, reading in found.items()}


def attacked_by_hand(model, loss, x, y, starts, size, num_steps):
    """Sign ascent one sample at a time, kept in the ball entry by entry."""
    moved = []
    for own, start, label in zip(x, starts, y, strict=True):
        z = start.clone()
        for _ in range(num_steps):
            leaf = z.clone()[None].requires_grad_()
            (g,) = torch.autograd.grad(loss(model(leaf), label[None]), leaf)
            z = torch.clamp(z + size * torch.sign(g[0]), own - EPSILON, own + EPSILON)
        moved.append(z)
    return torch.stack(moved)


CLASSIFIERS = [c for c in CASES if c.is_classifier]


@pytest.mark.parametrize("case", CLASSIFIERS, ids=lambda c: c.name)
def test_attacks_equal_loops_over_samples(case):
    built = case.build()
    model, (x, y) = built.model.eval(), built.batch
    loss, ball = input_loss(model, built.loss, x, y), Ball(EPSILON)
    torch.testing.assert_close(fgsm(loss, ball), attacked_by_hand(model, built.loss, x, y, x, EPSILON, 1))
    starts = ball.drawn(x, torch.Generator().manual_seed(3))
    assert float((starts - x).abs().max()) <= EPSILON
    found = pgd(loss, ball, 3, 0.2, torch.Generator().manual_seed(3))
    torch.testing.assert_close(found, attacked_by_hand(model, built.loss, x, y, starts, 0.2, 3))


@pytest.mark.parametrize("case", CLASSIFIERS, ids=lambda c: c.name)
def test_abnormal_share_and_fgsm_accuracy_equal_a_loop(case):
    built = case.build()
    found = measured(built.model, built.loss, built.batches, built.heldout_batches, num_steps=2)
    model, (x, y) = built.model.eval(), built.batch
    moved = attacked_by_hand(model, built.loss, x, y, x, EPSILON, 1)
    pairs = [(x[i : i + 1], moved[i : i + 1], y[i : i + 1]) for i in range(len(x))]
    fallen = [built.loss(model(b), c).item() < built.loss(model(a), c).item() for a, b, c in pairs]
    right = [int(model(b).argmax()) == int(c) for _, b, c in pairs]
    assert found["abnormal"].value == sum(fallen) / len(x)
    assert found["gap"].details["fgsm"] == pytest.approx(sum(right) / len(x))
    assert found["gap"].value == pytest.approx(sum(right) / len(x) - found["robust.train"].value)
    assert found["robust.gap"].value == found["robust.heldout"].value - found["robust.train"].value


def linear(seed=0, N=200, D=5):
    torch.manual_seed(seed)
    model = nn.Linear(D, 2, dtype=torch.float64)
    x = torch.randn(N, D, dtype=torch.float64)
    return model, (x, model(x).argmax(1).detach())


@pytest.mark.parametrize("num_steps", [1, 4, 20])
def test_a_linear_network_is_right_exactly_beyond_epsilon_times_the_norm_of_its_weights(num_steps):
    model, (x, y) = linear()
    w = (model.weight[0] - model.weight[1]).detach()
    lead = (model(x)[:, 0] - model(x)[:, 1]).detach().abs()
    expected = float((lead > EPSILON * w.abs().sum()).double().mean())
    assert 0.1 < expected < 0.9
    found = measured(model, F.cross_entropy, (x, y), num_steps=num_steps)
    assert found["robust.train"].value == pytest.approx(expected)  # 2.5 ε in all reaches the worst corner
    assert found["gap"].value == pytest.approx(0.0)
    assert found["abnormal"].value == 0.0


def test_no_attack_finds_more_in_a_smaller_ball_and_inputs_stay_in_their_range():
    model, (x, y) = linear()
    shares = [measured(model, F.cross_entropy, (x, y), epsilon=e)["robust.train"].value for e in (0.01, 0.1, 0.4, 2.0)]
    assert shares == sorted(shares, reverse=True)
    low, high = float(x.min()), float(x.max())
    loss = input_loss(model, F.cross_entropy, x, y)
    moved = pgd(loss, Ball(EPSILON, (low, high)), 5, 0.3, torch.Generator().manual_seed(0))
    assert low <= float(moved.min()) <= float(moved.max()) <= high
    assert float((moved - x).abs().max()) == pytest.approx(EPSILON)


class Square(nn.Module):
    """ℓ(x) = x² for a target of 0 under a mean of outputs."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, x):
        return self.gain * x.square()


def mean_output(z, y):
    return z.mean()


def test_the_linearity_error_of_a_square_is_its_closed_form_and_its_error_is_the_scatter():
    # with a, b uniform in the ball: E[α²(1−α)²] E[(a−b)⁴] = (1/30)(16/15) ε⁴; of the square (1/630)(256/45) ε⁸
    x, expected = torch.linspace(-1, 1, 300, dtype=torch.float64)[:, None], 16 / 450 * EPSILON**4
    scatter = math.sqrt((256 / 45 / 630 - (16 / 450) ** 2) / 300) * EPSILON**4
    options, num_seeds = {"adv": {"epsilon": EPSILON, "num_steps": 1}}, 60
    found = [
        tv.measure(Square(), loss=mean_output, batch=(x, x), what=options, seed=seed)["adv.linearity"]
        for seed in range(num_seeds)
    ]
    assert abs(np.mean([r.value for r in found]) - expected) < 4 * scatter / math.sqrt(num_seeds)
    assert np.mean([r.error**2 for r in found]) == pytest.approx(scatter**2, rel=0.2)


def test_pairs_reduce_the_error_of_linearity_and_a_linear_loss_has_none():
    x = torch.randn(100, 1, dtype=torch.float64)
    one, many = (measured(Square(), mean_output, (x, x), num_pairs=k, num_steps=1)["linearity"] for k in (1, 30))
    assert many.error < one.error / 3
    model, (x, y) = linear()
    flat = measured(model, lambda z, y: z[:, 0].mean(), (x, y))
    assert flat["linearity"].value == pytest.approx(0.0, abs=1e-25)
    errors = linearity_errors(input_loss(model, F.cross_entropy, x, y), Ball(0.1), torch.Generator().manual_seed(0))
    assert (errors > 0).all()


def test_a_loss_that_bends_over_within_the_ball_is_abnormal():
    x = torch.full((10, 1), 0.1, dtype=torch.float64)  # sin² climbs to π/2 and is back at its own value at π − x

    class Wave(Square):
        def forward(self, x):
            return self.gain * x.sin().square()

    assert measured(Wave(), mean_output, (x, x), epsilon=math.pi - 0.25)["abnormal"].value == 0.0
    assert measured(Wave(), mean_output, (x, x), epsilon=math.pi - 0.15)["abnormal"].value == 1.0


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others():
    model, batch = linear()
    one, again, other = (
        tv.measure(model, loss=F.cross_entropy, batch=batch, what={"adv": {"epsilon": 0.1}}, seed=seed)["adv.linearity"]
        for seed in (0, 0, 1)
    )
    assert one.value == again.value != other.value


def test_gradients_modes_and_random_states_stay_as_they_were():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    x, y = torch.randn(20, 4, requires_grad=True), torch.arange(20) % 3
    F.cross_entropy(model(x), y).backward()
    kept = [p.grad.clone() for p in model.parameters()] + [b.clone() for b in model.buffers()] + [x.grad.clone()]
    state = torch.get_rng_state()
    assert measured(model, F.cross_entropy, (x, y), (x, y))["gap"].missing is None
    now = [p.grad for p in model.parameters()] + list(model.buffers()) + [x.grad]
    assert all(torch.equal(a, b) for a, b in zip(kept, now, strict=True))
    assert torch.equal(state, torch.get_rng_state())
    assert model.training


def test_missing_with_the_reason():
    model, (x, y) = linear(N=20)
    assert "no radius was given" in measured(model, F.cross_entropy, (x, y), epsilon=None)["gap"].missing
    assert "lie outside the range" in measured(model, F.cross_entropy, (x, y), clip=(0.0, 1.0))["gap"].missing
    found = measured(model, F.cross_entropy, (x, y))
    assert "no held-out probe" in found["robust.heldout"].missing
    assert found["robust.gap"].missing == found["robust.heldout"].missing
    regression = measured(model, F.mse_loss, (x, torch.zeros(20, 2, dtype=torch.float64)))
    for part in ("gap", "robust.train", "robust.gap"):
        assert regression[part].missing is not None
    assert regression["linearity"].missing is regression["abnormal"].missing is None
    weighted = measured(model, nn.CrossEntropyLoss(torch.tensor([1.0, 9.0], dtype=torch.float64)), (x, y))
    assert "not the mean of its samples'" in weighted["abnormal"].missing
    assert weighted["gap"].missing is None
    tokens = nn.Sequential(nn.Embedding(4, 3), nn.Flatten(), nn.Linear(6, 2))
    batch = (torch.zeros(5, 2, dtype=torch.long), torch.zeros(5, dtype=torch.long))
    assert "torch.int64" in measured(tokens, F.cross_entropy, batch)["linearity"].missing


class Steep(Square):
    """Finite at the sample, infinite a little further."""

    def forward(self, x):
        return self.gain * torch.where(x.abs() > 0.2, torch.inf * x.abs(), x)


def test_an_infinite_loss_in_the_ball_is_no_number():
    x = torch.full((10, 1), 0.1, dtype=torch.float64)
    found = measured(Steep(), mean_output, (x, x), num_steps=1)
    assert "NaN or Inf" in found["linearity"].missing
    assert "NaN or Inf" in found["abnormal"].missing


@pytest.mark.parametrize(
    "options",
    [{"epsilon": 0.0}, {"epsilon": True}, {"num_steps": 0}, {"step_size": -1.0}, {"num_pairs": 1.5}, {"clip": (1, 0)},
     {"clip": (1,)}],
    ids=str,
)  # fmt: skip
def test_lengths_and_counts_that_are_none_are_refused(options):
    with pytest.raises(ValueError, match="in options of 'adv'"):
        Adversarial(**options)
