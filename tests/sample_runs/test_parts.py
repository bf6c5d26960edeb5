"""The shared parts against plain counts: data are what they say, batches cover all samples, descent is descent."""

from __future__ import annotations

import pytest
import torch

from trainvitals.sample_runs.parts import (
    batches,
    descend,
    digits,
    half_squared_error,
    mixture,
    mlp,
    modular_sums,
    with_wrong_labels,
)


def test_digits_are_split_without_overlap_and_the_asked_share_is_wrong():
    data = digits(500, seed=3, wrong_share=0.2)
    assert len(data.wrong) == 100
    assert (data.y[data.wrong] != data.y_true[data.wrong]).all()
    assert data.flipped_fit["true_labels"] == data.y_true[data.wrong].tolist()
    together = torch.cat([data.x, data.x_test])
    assert together.shape == (1797, 64)
    assert 0 <= together.min() <= together.max() <= 1
    other = digits(900, seed=5, flat=False)
    assert other.x.shape == (900, 1, 8, 8)
    assert sorted(torch.cat([other.y, other.y_test]).tolist()) == sorted(torch.cat([data.y_true, data.y_test]).tolist())


def test_digits_refuse_what_leaves_nothing_to_test_on():
    with pytest.raises(ValueError, match="expected 0 < num_train < 1797"):
        digits(1797, seed=0)


def test_wrong_labels_are_drawn_evenly_among_the_other_classes():
    y = torch.zeros(9000, dtype=torch.long)
    changed = with_wrong_labels(y, 1.0, 10, torch.Generator().manual_seed(0))
    counts = torch.bincount(changed, minlength=10)
    assert counts[0] == 0
    assert (counts[1:] - 1000).abs().max() < 5 * 1000**0.5  # five standard deviations of a count


def test_a_mixture_has_means_of_the_asked_norm():
    data = mixture([2000, 2000], 5, seed=1, distance=3.0)
    for c in (0, 1):
        assert data.x[data.y == c].mean(dim=0).norm() == pytest.approx(3.0, abs=5 * (5 / 2000) ** 0.5)


def test_modular_sums_are_all_pairs_once():
    (x, y), (x_test, y_test) = modular_sums(7, 0.5, seed=2)
    together, sums = torch.cat([x, x_test]), torch.cat([y, y_test])
    a, b = together[:, :7].argmax(1), together[:, 7:].argmax(1)
    assert len({(int(i), int(j)) for i, j in zip(a, b, strict=True)}) == 49
    assert torch.equal((a + b) % 7, sums)


def test_batches_cover_every_sample_once_an_epoch():
    seen = torch.cat(list(batches(10, 5, 4, seed=0)))
    assert sorted(seen[:10].tolist()) == sorted(seen[10:].tolist()) == list(range(10))


def test_one_full_batch_step_is_a_step_down_the_gradient():
    torch.manual_seed(0)
    model, x, y = mlp(3, 2, bias=False), torch.randn(6, 3), torch.randint(0, 2, (6,))
    before = model[0].weight.detach().clone()
    gradient = torch.autograd.grad(half_squared_error(model(x), y), model[0].weight)[0]
    descend(model, torch.optim.SGD(model.parameters(), lr=0.5), half_squared_error, (x, y), 1)
    torch.testing.assert_close(model[0].weight.detach(), before - 0.5 * gradient)


def test_half_squared_error_is_the_sum_over_outputs_and_the_mean_over_samples():
    outputs, targets = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 4.0]])
    assert float(half_squared_error(outputs, targets)) == pytest.approx(0.5 * (5 + 16) / 2)
