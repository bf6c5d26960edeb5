"""Scales of weights against numpy's singular values and against the definitions they stand for."""

import numpy as np
import pytest
import torch
from cases import CASES
from fake_snapshot import FakeSnapshot
from torch import nn

import trainvitals as tv
from trainvitals.diagnostics.base import Classifier, Missing, OptimizerView, ParameterGroup
from trainvitals.diagnostics.weight_scales import EnergyRank, OutputNorm, SteadyState, rank_of_energy


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def singular_values(weight):
    return np.linalg.svd(weight.detach().numpy().reshape(len(weight), -1), compute_uv=False)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_numbers_equal_those_of_numpys_singular_values(case):
    built = case.build()
    rates = {n: 0.01 * (i + 1) for i, (n, _) in enumerate(built.model.named_parameters())}
    groups = [{"params": [p], "lr": rates[n], "weight_decay": 0.1} for n, p in built.model.named_parameters()]
    found = tv.measure(
        built.model, loss=built.loss, batch=built.batch, optimizer=torch.optim.AdamW(groups),
        what=["weights.r99", "weights.steady", "weights.rms_inf"],
    )  # fmt: skip
    matrices = {n: p for n, p in built.model.named_parameters() if p.requires_grad and p.ndim > 1}
    sigma = {name: singular_values(p) for name, p in matrices.items()}
    ranks = [next(k for k in range(1, 99) if (s[:k] ** 2).sum() >= 0.99 * (s**2).sum()) for s in sigma.values()]
    assert found["weights.r99"].keys == found["weights.steady"].keys == tuple(matrices)
    assert found["weights.r99"].value.tolist() == ranks
    assert found["weights.r99"].details["of"] == {name: len(s) for name, s in sigma.items()}
    steady = [s[0] / (rates[name] / 0.1) ** 0.5 for name, s in sigma.items()]
    assert found["weights.steady"].value.tolist() == pytest.approx(steady, rel=1e-6)
    name, weight = list(matrices.items())[-1]
    assert found["weights.rms_inf"].details["layer"] == name.removesuffix(".weight")
    rows = [np.sqrt(weight.shape[1]) * np.linalg.norm(row) for row in weight.detach().numpy()]
    assert found["weights.rms_inf"].value == pytest.approx(max(rows), rel=1e-6)


def test_the_norm_of_the_output_layer_is_reached_and_never_passed():
    W = normal(5, 7)
    snapshot = FakeSnapshot(classifier=Classifier("fc", W, None))
    found = OutputNorm().measure(snapshot)
    h = normal(7, 4000, seed=1)
    h = h / h.square().mean(0).sqrt()  # root mean square 1
    assert float((W @ h).abs().max()) < found.value
    best = W[found.details["row"]]
    assert float((W @ (best / best.square().mean().sqrt())).abs().max()) == pytest.approx(found.value)


def test_ranks_of_known_spectra():
    assert rank_of_energy(torch.ones(200), 0.99) == 198
    assert rank_of_energy(torch.tensor([1.0, 0.0, 0.0]), 0.99) == 1
    assert rank_of_energy(torch.tensor([10.0, 1.0]), 0.99) == 1  # 100 of 101
    assert rank_of_energy(torch.tensor([9.9, 1.0]), 0.99) == 2


def test_rotating_and_scaling_leave_the_rank_and_the_error_of_cutting_there_is_below_a_tenth():
    W = normal(8, 12) @ torch.diag(torch.logspace(0, -3, 12, dtype=torch.float64))
    Q, _ = torch.linalg.qr(normal(8, 8, seed=1))
    one, other = (EnergyRank().measure(FakeSnapshot(parameters={"w": w})).value.tolist() for w in (W, 5 * Q @ W))
    assert one == other
    U, s, Vt = torch.linalg.svd(W, full_matrices=False)

    def error_of(k):
        return float((W - (U[:, :k] * s[:k]) @ Vt[:k]).norm() / W.norm())

    assert error_of(int(one[0])) <= 0.1 < error_of(int(one[0]) - 1)


def view(kind="AdamW", **options):
    return OptimizerView(kind, (ParameterGroup({"lr": 0.1, "weight_decay": 0.1} | options, ("w",)),), {})


def test_adamw_with_noise_for_gradients_settles_where_the_ratio_does_not_depend_on_the_rates():
    ratios = []
    for lr, decay in ((2e-3, 0.5), (4e-3, 1.0), (8e-3, 0.5)):
        torch.manual_seed(0)
        model = nn.Linear(12, 12, bias=False)
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=decay)
        for _ in range(round(4 / (lr * decay))):  # e-folding time of the decay: 1/(ηλ) steps
            model.weight.grad = torch.randn(12, 12)
            optimizer.step()
        found = SteadyState().measure(
            FakeSnapshot(parameters={"w": model.weight.detach()}, optimizer=view(lr=lr, weight_decay=decay))
        )
        ratios.append(float(found.value[0]))
    assert max(ratios) / min(ratios) < 1.25  # √(η/λ) itself differs by a factor of 2


def test_missing_with_the_reason():
    weights = {"w": normal(3, 3), "free": normal(3, 3), "zero": torch.zeros(3, 3)}
    found = EnergyRank().measure(FakeSnapshot(parameters=weights))
    assert found.details["left_out"] == {"zero": "it is zero"}
    with pytest.raises(Missing, match="no weight matrix"):
        EnergyRank().measure(FakeSnapshot(parameters={"b": torch.ones(3)}))
    steady = SteadyState().measure(FakeSnapshot(parameters=weights, optimizer=view()))
    assert steady.keys == ("w",)
    assert steady.details["left_out"]["free"] == "its learning rate or its weight decay is 0"
    for optimizer, reason in ((view("SGD"), "the optimiser is SGD"), (view(weight_decay=0.0), "weight decay is 0")):
        with pytest.raises(Missing, match=reason):
            SteadyState().measure(FakeSnapshot(parameters=weights, optimizer=optimizer))
    with pytest.raises(Missing, match="no optimizer"):
        SteadyState().measure(FakeSnapshot(parameters=weights))
    with pytest.raises(Missing, match="no classifier"):
        OutputNorm().measure(FakeSnapshot())
    with pytest.raises(Missing, match="NaN or Inf"):
        OutputNorm().measure(FakeSnapshot(classifier=Classifier("fc", torch.full((2, 2), torch.nan), None)))


def test_a_share_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"options of 'weights\.r99'"):
        EnergyRank(share=1.0)
