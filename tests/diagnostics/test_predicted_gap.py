"""The prediction against simulated training sets, against torch's covariance, and its error against the spread."""

import pytest
import torch
from cases import CASES
from fake_snapshot import with_gradients
from naive import sample_gradients

import trainvitals as tv
from trainvitals.diagnostics.base import Missing, OptimizerView, ParameterGroup
from trainvitals.diagnostics.gradient_sums import GradientSums
from trainvitals.diagnostics.predicted_gap import PredictedGap, traces


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def view(kind="SGD", names=("w",), **options):
    return OptimizerView(kind, (ParameterGroup({"lr": 0.1, **options}, names),), {})


def measured(G, optimizer=None, num_train=10, **options):
    snapshot = with_gradients(G, **options)
    snapshot.optimizer = optimizer or view()
    return PredictedGap(num_train).measure(snapshot)


def test_the_value_is_the_trace_of_the_covariance():
    G = normal(20, 6) + 2
    expected = 0.1 * float(torch.cov(G.T).trace()) / 10
    assert measured(G).value == pytest.approx(expected, rel=1e-12)


def test_traces_of_tensors_are_blocks_of_the_covariance():
    G = normal(20, 6) + 2
    sums = GradientSums({"a": torch.Size([2, 2]), "b": torch.Size([2])})
    sums.add(G)
    diagonal = torch.cov(G.T).diagonal()
    assert traces(sums) == pytest.approx({"a": float(diagonal[:4].sum()), "b": float(diagonal[4:].sum())}, rel=1e-12)


def test_the_gap_grows_as_predicted_over_many_training_sets():
    """Loss ½‖θ − x‖²: the gap after one step, less that before it, against its prediction, both on average."""
    n, scales, rate, theta = 20, torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64), 0.1, torch.ones(3).double()
    grown, predicted = [], []
    for seed in range(2000):
        x = scales * normal(n, 3, seed=seed)
        after = theta - rate * (theta - x).mean(0)

        def gap(at, x=x):  # the population's loss is ½‖θ‖² + ½ tr Σ
            population = at.square().sum() / 2 + scales.square().sum() / 2
            return float(population - (at - x).square().sum(1).mean() / 2)

        grown.append(gap(after) - gap(theta))
        if seed < 200:
            predicted.append(measured(theta - x, num_train=n).value)
    grown = torch.tensor(grown)
    truth = rate * float(scales.square().sum()) / n
    assert sum(predicted) / len(predicted) == pytest.approx(truth, rel=0.06)  # 1.6 % of noise
    assert float(grown.mean()) == pytest.approx(truth, abs=4 * float(grown.std()) / 2000**0.5)
    assert float(grown.std()) / 2000**0.5 < 0.1 * truth  # or the line above could not fail


def test_momentum_multiplies_the_rate_by_all_its_later_steps():
    G = normal(20, 6)
    plain, heavy = measured(G), measured(G, view(momentum=0.9, dampening=0.5))
    assert heavy.value == pytest.approx(5 * plain.value, rel=1e-12)
    assert heavy.details["learning_rates"] == pytest.approx([0.5])


@pytest.mark.parametrize("nesterov", [False, True])
def test_one_gradient_moves_the_weights_by_its_total_weight(nesterov):
    w = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.1, momentum=0.8, nesterov=nesterov)
    for gradient in [1.0] + [0.0] * 100:
        w.grad = torch.tensor([gradient])
        optimizer.step()
    assert w.item() == pytest.approx(-0.1 / (1 - 0.8), rel=1e-5)


def test_groups_of_unlike_rates_add_up():
    built = CASES[0].build()
    x, y = built.batch
    G = sample_gradients(built.model, built.loss, x, y).detach()
    parameters = list(built.model.parameters())
    optimizer = torch.optim.SGD([{"params": parameters[:2], "lr": 0.5}, {"params": parameters[2:5], "lr": 0.1}])
    sizes = [p.numel() for p in parameters]
    rates = torch.repeat_interleave(torch.tensor([0.5, 0.5, 0.1, 0.1, 0.1, 0.0]).double(), torch.tensor(sizes))
    expected = float((rates * G.var(0)).sum()) / 1000
    reading = tv.measure(built.model, loss=built.loss, batch=built.batch, what=["gap.predicted"], optimizer=optimizer,
                         options={"gap.predicted": {"num_train": 1000}})["gap.predicted"]  # fmt: skip
    assert reading.value == pytest.approx(expected, rel=1e-6)
    assert reading.error is None
    assert "unlike learning rates" in reading.details["without_error"]


@pytest.mark.parametrize("num_samples", [16, 50])
def test_the_error_is_the_spread_of_the_prediction(num_samples):
    scales = torch.linspace(0.5, 2, 50, dtype=torch.float64)
    readings = [measured(1 + scales * normal(num_samples, 50, seed=seed)) for seed in range(100)]
    values = torch.tensor([reading.value for reading in readings])
    errors = torch.tensor([reading.error for reading in readings])
    assert float(errors.mean() / values.std()) == pytest.approx(1, abs=0.25)  # 7 % of noise in the spread
    truth = 0.1 * float(scales.square().sum()) / 10
    assert int(((values - truth).abs() <= 2 * errors).sum()) >= 87


@pytest.mark.parametrize(
    ("gradients", "optimizer", "num_train", "reason"),
    [
        (torch.ones(4, 3), view(), None, "size of the training set is not known"),
        (torch.ones(4, 3), view("Adam"), 10, "which Adam does not take"),
        (torch.ones(4, 3), view(momentum=1.0), 10, "acts for ever"),
        (torch.ones(1, 3), view(), 10, "at least 2 samples"),
        (torch.full((4, 3), torch.nan), view(), 10, "hold NaN or Inf"),
    ],
)
def test_missing_with_the_reason(gradients, optimizer, num_train, reason):
    with pytest.raises(Missing, match=reason):
        measured(gradients, optimizer, num_train)


def test_missing_without_an_optimiser_and_refused_without_samples():
    with pytest.raises(Missing, match="no optimizer"):
        PredictedGap(10).measure(with_gradients(torch.ones(4, 3)))
    with pytest.raises(ValueError, match=r"expected num_train ≥ 1, got 0"):
        PredictedGap(num_train=0)


def test_few_samples_have_no_error_and_say_why():
    reading = measured(normal(15, 3))
    assert reading.error is None
    assert "15 samples" in reading.details["without_error"]
