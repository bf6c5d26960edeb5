"""Loss, prediction and mean margin by sample against loops; wrong labels sink to the bottom of the margins."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import CASES
from fake_snapshot import FakeSnapshot, evaluation

import trainvitals as tv
from trainvitals.diagnostics.samples import Samples


@pytest.mark.parametrize("case", [c for c in CASES if c.is_classifier], ids=lambda c: c.name)
def test_numbers_equal_a_pass_over_each_sample_alone(case):
    built = case.build()
    model, (x, y) = built.model.eval(), built.batch
    found = tv.measure(model, loss=built.loss, batch=built.batches, what=["samples"])
    with torch.no_grad():
        outputs = [model(x[i : i + 1]) for i in range(len(x))]
        losses = [float(built.loss(z, y[i : i + 1])) for i, z in enumerate(outputs)]
    margins = [
        float(z[0, y[i]] - max(z[0, k] for k in range(z.shape[1]) if k != y[i])) for i, z in enumerate(outputs)
    ]
    assert found["samples.loss"].value.tolist() == pytest.approx(losses, rel=1e-9)
    assert found["samples.aum"].value.tolist() == pytest.approx(margins, rel=1e-9)
    assert found["samples.predicted"].value.tolist() == [int(z.argmax()) for z in outputs]
    assert all(found[f"samples.{part}"].keys == tuple(map(str, range(len(x)))) for part in ("loss", "aum", "predicted"))


def test_the_margin_is_the_mean_over_the_measurements():
    diagnostic, labels = Samples(), torch.tensor([0, 1])
    seen = [torch.tensor([[2.0, 1.0], [5.0, 1.0]]), torch.tensor([[0.0, 3.0], [1.0, 1.0]])]
    found = [
        diagnostic.measure(FakeSnapshot(train=evaluation(0.0, z, labels), sample_losses=torch.ones(2))) for z in seen
    ]
    assert found[0]["aum"].value.tolist() == [1.0, -4.0]
    assert found[1]["aum"].value.tolist() == [-1.0, -2.0]
    assert found[1]["aum"].details == {"num_measurements": 2}


def test_wrong_labels_are_at_the_bottom_of_the_ranking():
    torch.manual_seed(0)
    y = torch.arange(120) // 2 % 3  # three clouds, far apart
    x = 4 * F.one_hot(y, 5) + torch.randn(120, 5)
    wrong = torch.arange(0, 120, 12)
    given = y.clone()
    given[wrong] = (y[wrong] + 1) % 3
    model, diagnostic = torch.nn.Linear(5, 3), Samples()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(x), given).backward()
        optimizer.step()
        outputs = model(x).detach()
        found = diagnostic.measure(FakeSnapshot(train=evaluation(0.0, outputs, given), sample_losses=torch.ones(120)))
    assert set(np.argsort(found["aum"].value.numpy())[:10].tolist()) == set(wrong.tolist())


def test_what_is_undefined_says_why():
    outputs = torch.tensor([[1.0, torch.nan], [0.0, 1.0]])
    found = Samples().measure(FakeSnapshot(train=evaluation(0.0, outputs, torch.tensor([0, 1]))))
    assert "no sample_losses" in found["loss"].missing
    assert found["predicted"].missing == "the outputs hold NaN or Inf"
    assert found["aum"].missing == "1 samples have outputs with NaN or Inf"
    regression = Samples().measure(FakeSnapshot(train=evaluation(0.0, torch.ones(3, 1), torch.ones(3, 1))))
    assert all("not a classifier" in regression[part].missing for part in ("predicted", "aum"))
