"""The share against averages over all gradients kept, closed forms, and a run watched at other intervals."""

import pytest
import torch
from cases import CASES
from fake_snapshot import FakeSnapshot, with_steps

import trainvitals as tv
from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.slow_gradients import SlowGradients


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def after(steps, gradients, decay=0.98):
    """The last reading of a run with these gradients, each split into two tensors."""
    diagnostic = SlowGradients(decay)
    reading = None
    for step, g in zip(steps, gradients, strict=True):
        snapshot = with_steps({"a": g[:2], "b": g[2:]}, {}, step=step)
        try:
            reading = diagnostic.measure(snapshot)
        except Missing as reason:
            reading = reason
    return reading


def by_hand(steps, gradients, decay):
    weights = torch.tensor([decay ** (steps[-1] - step) for step in steps], dtype=torch.float64)
    weights = weights / weights.sum()
    mean = sum(w * g for w, g in zip(weights, gradients, strict=True))
    energy = sum(w * g.square().sum() for w, g in zip(weights, gradients, strict=True))
    return float(mean.square().sum() / energy), float(weights.square().sum())


@pytest.mark.parametrize("steps", [range(1, 13), [1, 2, 10, 11, 40], [20, 40, 60]], ids=["every", "uneven", "sparse"])
def test_the_share_equals_that_of_all_gradients_kept(steps):
    steps = list(steps)
    gradients = [normal(5, seed=step) + 1 for step in steps]
    reading = after(steps, gradients, decay=0.9)
    share, chance = by_hand(steps, gradients, 0.9)
    assert reading.value == pytest.approx(share, rel=1e-12)
    assert reading.details["chance"] == pytest.approx(chance, rel=1e-12)


def test_the_same_gradient_is_all_slow_and_a_bounce_is_not():
    g = normal(5)
    assert after(range(1, 301), [g] * 300).value == pytest.approx(1, rel=1e-12)
    bounce = [(-1) ** step * g for step in range(2000)]
    assert after(range(1, 2001), bounce).value == pytest.approx((0.02 / 1.98) ** 2, rel=1e-6)


@pytest.mark.parametrize(("interval", "chance"), [(1, 0.0101), (10, 0.1006)])
def test_gradients_with_nothing_in_common_give_the_level_of_chance(interval, chance):
    steps = range(interval, 1000 * interval, interval)
    reading = after(steps, [normal(2000, seed=step) for step in steps])
    assert reading.details["chance"] == pytest.approx(chance, rel=0.01)
    # a squared length of 2000 normal entries varies by 3 %
    assert reading.value == pytest.approx(chance, rel=0.15)


def test_lengths_common_to_all_do_not_matter():
    gradients = [normal(5, seed=s) + 0.5 for s in range(9)]
    one, other = after(range(1, 10), gradients), after(range(1, 10), [1e-6 * g for g in gradients])
    assert other.value == pytest.approx(one.value, rel=1e-9)


def test_a_tensor_without_a_gradient_counts_as_zero():
    diagnostic = SlowGradients(0.5)
    with pytest.raises(Missing):
        diagnostic.measure(with_steps({"a": torch.tensor([3.0])}, {}, step=1))
    reading = diagnostic.measure(with_steps({"b": torch.tensor([4.0])}, {}, step=2))
    share, _ = by_hand([1, 2], [torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])], 0.5)
    assert reading.value == pytest.approx(share)


def test_the_given_gradient_is_not_written_to():
    diagnostic, g = SlowGradients(), torch.ones(3)
    for step in (1, 2, 3):
        try:
            diagnostic.measure(with_steps({"w": g}, {}, step=step))
        except Missing:
            continue
    assert g.tolist() == [1, 1, 1]


def test_missing_with_the_reason():
    assert "second measured step" in str(after([1], [normal(5)]))
    assert "are zero" in str(after([1, 2], [torch.zeros(5)] * 2))
    with pytest.raises(Missing, match="no trajectory"):
        SlowGradients().measure(FakeSnapshot())
    gradients = [normal(5, seed=s) for s in range(3)]
    bad = torch.full((5,), torch.nan)
    assert "NaN or Inf" in str(after([1, 2], [gradients[0], bad]))
    spared = after([1, 2, 3], [gradients[0], bad, gradients[2]])
    assert spared.value == pytest.approx(by_hand([1, 3], [gradients[0], gradients[2]], 0.98)[0], rel=1e-12)


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5])
def test_wrong_decay_is_refused(decay):
    with pytest.raises(ValueError, match="expected 0 < decay < 1"):
        SlowGradients(decay)


def test_a_watched_run_averages_its_own_gradients(tmp_path):
    built = CASES[0].build()
    optimizer = torch.optim.SGD(built.model.parameters(), lr=0.1)
    x, y = built.batch
    gradients = []
    with tv.watch(built.model, optimizer, loss=built.loss, train=built.batch, store=tmp_path,
                  probes=["grad.slow_share"], every=3, budget=None) as run:  # fmt: skip
        for step in range(1, 13):
            optimizer.zero_grad()
            built.loss(built.model(x[step:]), y[step:]).backward()
            gradients.append(torch.cat([p.grad.reshape(-1).clone() for p in built.model.parameters()]))
            optimizer.step()
    steps = [3, 6, 9, 12]
    (_, reading), = [tv.open_run(run.path).latest()["grad.slow_share"]]
    share, chance = by_hand(steps, [gradients[step - 1] for step in steps], 0.98)
    assert reading.value == pytest.approx(share, rel=1e-6)
    assert reading.details["chance"] == pytest.approx(chance, rel=1e-6)
