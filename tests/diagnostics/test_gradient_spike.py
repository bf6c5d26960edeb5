"""Spikes of the gradient over scripted runs, and Adam's average followed by hand."""

import pytest
import torch
import torch.nn.functional as F
from fake_snapshot import FakeSnapshot, with_steps
from torch import nn

import trainvitals as tv
from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.gradient_spike import GradientSpike, spiked
from trainvitals.probes.optimizer_view import optimizer_view

THRESHOLD = 20.0


def at(norm):
    gradient = {"w": torch.tensor([0.6, 0.8]) * norm, "b": torch.zeros(2)}
    return with_steps(gradient, gradient)


def test_norms_are_over_the_largest_of_the_last_measurements():
    diagnostic, norms = GradientSpike(window=3), [2.0, 1.0, 4.0, 1.0, 1.0, 1.0, 3.0]
    found = [diagnostic.measure(at(norm))["norm"] for norm in norms]
    assert "no earlier gradient" in found[0].missing
    expected = [norms[i] / max(norms[max(0, i - 3) : i]) for i in range(1, len(norms))]
    assert [reading.value for reading in found[1:]] == pytest.approx(expected)
    assert found[-1].details["largest_before"] == pytest.approx(1.0)


def test_scaling_every_gradient_changes_nothing():
    one, other = GradientSpike(), GradientSpike()
    for norm in (2.0, 1.0, 4.0):
        a, b = one.measure(at(norm))["norm"], other.measure(at(1e-3 * norm))["norm"]
    assert a.value == pytest.approx(b.value)


OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, 0.05, betas=(0.9, 0.9)),
    "adam_with_l2": lambda p: torch.optim.Adam(p, 0.05, betas=(0.9, 0.9), weight_decay=0.3),
    "adamw_maximize": lambda p: torch.optim.AdamW(p, 0.05, betas=(0.9, 0.9), weight_decay=0.3, maximize=True),
    "adam_l2_maximize": lambda p: torch.optim.Adam(p, 0.05, betas=(0.9, 0.9), weight_decay=0.3, maximize=True),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_entries_equal_an_average_followed_by_hand(kind, tmp_path):
    torch.manual_seed(0)
    model = nn.Linear(5, 4).double()
    x, y = torch.randn(30, 5, dtype=torch.float64), torch.randn(30, 4, dtype=torch.float64)
    optimizer = OPTIMIZERS[kind](model.parameters())
    v, counts = [torch.zeros_like(p) for p in model.parameters()], []
    options = {"grad.spike": {"threshold": THRESHOLD}}
    with tv.watch(model, optimizer, loss=F.mse_loss, train=(x, y), store=tmp_path, probes=options, every=1):
        for step in range(12):
            optimizer.zero_grad()
            size = 30.0 if step in (4, 9) else 1.0
            (size * F.mse_loss(model(x[step : step + 4]), y[step : step + 4])).backward()
            count = 0
            for i, p in enumerate(model.parameters()):
                g = p.grad * (-1 if "maximize" in kind else 1) + (0.3 * p.detach() if "l2" in kind else 0.0)
                count += int((g**2 > THRESHOLD * v[i]).sum())
                v[i] = 0.9 * v[i] + 0.1 * g**2
            counts.append(count)
            optimizer.step()
    with tv.open_run("latest", store=tmp_path) as run:
        found = run.series("grad.spike.entries").dropna(subset="value")
    assert found["step"].tolist() == list(range(2, 13))  # step 1 has no average before it
    assert (found["value"] * 24).round(9).tolist() == counts[1:]
    assert max(counts[4], counts[9]) > 0


def test_entries_that_never_had_a_gradient_do_not_spike():
    zero = torch.zeros(3)
    assert spiked(zero, zero, 0.999, 1.0) == 0


def test_missing_with_the_reason():
    with pytest.raises(Missing, match="no trajectory"):
        GradientSpike().measure(FakeSnapshot())
    with pytest.raises(Missing, match="NaN or Inf"):
        GradientSpike().measure(at(torch.nan))
    diagnostic = GradientSpike()
    diagnostic.measure(at(0.0))
    found = diagnostic.measure(at(1.0))
    assert "no earlier gradient" in found["norm"].missing
    assert found["entries"].missing == "no optimizer"
    model = nn.Linear(2, 1)
    for optimizer, reason in ((torch.optim.SGD, "the optimiser is SGD"), (torch.optim.Adam, "it needs two steps")):
        view = optimizer_view(optimizer(model.parameters(), 0.1), model)
        gradient = {name: torch.ones_like(p) for name, p in model.named_parameters()}
        found = GradientSpike().measure(with_steps(gradient, gradient, optimizer=view))
        assert reason in found["entries"].missing


@pytest.mark.parametrize("options", [{"window": 0}, {"window": 2.5}, {"threshold": 0.0}], ids=str)
def test_options_that_make_no_number_are_refused(options):
    with pytest.raises(ValueError, match=r"options of 'grad\.spike'"):
        GradientSpike(**options)
