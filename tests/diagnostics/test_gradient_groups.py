"""Gradients of groups against backward passes by hand, on the case list."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from cases import CASES
from torch import nn

import trainvitals as tv
from trainvitals.diagnostics import gradient_groups
from trainvitals.diagnostics.gradient_groups import GradientPerGroup, gram_of


def by_hand(model, loss, x, y, members):
    """The gradient of each group's mean loss, one backward pass a sample."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    sums, counts = {}, {}
    for i, group in enumerate(members):
        parts = torch.autograd.grad(loss(model(x[i : i + 1]), y[i : i + 1]), parameters, materialize_grads=True)
        sums[group] = sums.get(group, 0) + torch.cat([g.flatten() for g in parts])
        counts[group] = counts.get(group, 0) + 1
    return {group: sums[group] / counts[group] for group in sorted(sums)}


def measured(model, loss, batch, groups):
    found = tv.measure(model, loss=loss, batch=batch, what={"grad.per_group": {"groups": groups}})
    return {name.removeprefix("grad.per_group."): reading for name, reading in found.items()}


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_numbers_equal_backward_passes_by_hand(case):
    built = case.build()
    members = [("water", "land", "air")[i % 3 if i < 9 else 0] for i in range(len(built.batch[0]))]
    found = measured(built.model, built.loss, built.batches, members)
    expected = by_hand(built.model.eval(), built.loss, *built.batch, members)
    names, g = tuple(expected), list(expected.values())
    cosines = [[float(F.cosine_similarity(a, b, dim=0)) for b in g] for a in g]
    others = [[c for j, c in enumerate(row) if j != i] for i, row in enumerate(cosines)]
    assert found["norm"].keys == found["cosine"].keys == names
    assert found["norm"].value.tolist() == pytest.approx([float(a.norm()) for a in g], rel=1e-7)
    assert found["cosine"].value.tolist() == pytest.approx([sum(row) / 2 for row in others], abs=1e-7)
    assert found["min_cosine"].value.tolist() == pytest.approx([min(row) for row in others], abs=1e-7)
    pairs = [cosines[i][j] < 0 for i, j in itertools.combinations(range(3), 2)]
    assert found["conflicts"].value == sum(pairs) / 3
    assert found["cosine"].details["cosines"].tolist() == [pytest.approx(row, abs=1e-7) for row in cosines]


def test_opposite_targets_conflict_and_duplicates_change_nothing():
    x, y = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(6, 1)
    model = nn.Linear(3, 1, bias=False)
    nn.init.zeros_(model.weight)
    x[3:], y[:3], y[3:] = x[:3], 1.0, -1.0
    found = measured(model, F.mse_loss, (x, y), [0, 0, 0, 1, 1, 1])
    assert found["conflicts"].value == 1.0
    assert found["cosine"].value.tolist() == pytest.approx([-1.0, -1.0])
    again = [*range(6), 0, 1, 2]
    doubled = measured(model, F.mse_loss, (x[again], y[again]), [0, 0, 0, 1, 1, 1, 0, 0, 0])
    assert doubled["norm"].value.tolist() == pytest.approx(found["norm"].value.tolist())


def test_scaling_the_loss_scales_norms_and_leaves_cosines():
    built = CASES[0].build()
    one = measured(built.model, built.loss, built.batch, built.batch[1])
    other = measured(built.model, lambda z, y: 5 * built.loss(z, y), built.batch, built.batch[1])
    assert other["norm"].value.tolist() == pytest.approx((5 * one["norm"].value).tolist())
    assert other["cosine"].value.tolist() == pytest.approx(one["cosine"].value.tolist())


def test_sums_over_columns_do_not_depend_on_their_number(monkeypatch):
    gradients = [torch.randn(10, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    whole = gram_of(gradients)
    monkeypatch.setattr(gradient_groups, "_COLUMNS", 3)
    torch.testing.assert_close(gram_of(gradients), whole)


def test_a_group_with_a_gradient_of_zero_has_a_norm_and_no_cosine():
    model = nn.Linear(2, 1, bias=False)
    x = torch.tensor([[1.0, 2.0], [0.0, 0.0], [2.0, 1.0]])
    found = measured(model, F.mse_loss, (x, torch.full((3, 1), 9.0)), ["a", "zero", "b"])
    assert found["norm"].value[2] == 0
    assert found["cosine"].keys == ("a", "b")
    assert found["cosine"].details["left_out"] == {"zero": "its gradient is zero"}


def test_missing_with_the_reason(monkeypatch):
    model, batch = nn.Linear(2, 1), (torch.randn(3, 2), torch.randn(3, 1))
    assert "no groups were given" in measured(model, F.mse_loss, batch, ())["norm"].missing
    assert "2 samples, the train probe has 3" in measured(model, F.mse_loss, batch, [0, 1])["conflicts"].missing
    one = measured(model, F.mse_loss, batch, [0, 0, 0])
    assert one["norm"].missing is None
    for part in ("cosine", "min_cosine", "conflicts"):
        assert "a cosine needs two" in one[part].missing
    monkeypatch.setattr(gradient_groups, "MAX_BYTES", 35)
    assert "more than 0 MiB" in measured(model, F.mse_loss, batch, [0, 1, 2])["norm"].missing
    monkeypatch.undo()
    with torch.no_grad():
        model.weight.fill_(torch.nan)
    assert "NaN or Inf" in measured(model, F.mse_loss, batch, [0, 1, 1])["norm"].missing


def test_what_is_no_group_is_refused():
    with pytest.raises(ValueError, match=r"of the options of 'grad\.per_group'"):
        GradientPerGroup(groups="land")
