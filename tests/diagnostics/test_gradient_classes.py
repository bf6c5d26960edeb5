"""Stiffness and class gradients against loops over pairs and classes."""

import pytest
import torch
from cases import CASES
from fake_snapshot import with_gradients
from naive import pair_cosines, sample_gradients

import trainvitals as tv
from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.gradient_classes import GradientPerClass, GradientStiffness

CLASSIFIERS = [case for case in CASES if case.is_classifier]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(G, labels):
    """Norms and cosines of class means, class by class."""
    means = {c: G[labels == c].mean(0) for c in sorted(set(labels.tolist()))}

    def cosines(c):
        return [float(means[c] @ m / (means[c].norm() * m.norm())) for k, m in means.items() if k != c]

    return {"norm": [float(m.norm()) for m in means.values()],
            "cosine": [sum(cosines(c)) / len(cosines(c)) for c in means],
            "min_cosine": [min(cosines(c)) for c in means]}  # fmt: skip


def test_stiffness_equals_the_mean_over_explicit_pairs():
    G, labels = normal(11, 7) + 0.3, torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2])
    readings = GradientStiffness().measure(with_gradients(G, labels, 3))
    assert readings["within"].value == pytest.approx(pair_cosines(G, lambda i, j: labels[i] == labels[j]), rel=1e-12)
    assert readings["between"].value == pytest.approx(pair_cosines(G, lambda i, j: labels[i] != labels[j]), rel=1e-12)


def test_stiffness_does_not_see_lengths_or_zero_gradients():
    G, labels = normal(9, 6), torch.arange(9) % 3
    one = GradientStiffness().measure(with_gradients(G, labels, 3))
    scaled = torch.cat([G * torch.logspace(-6, 6, 9).double()[:, None], torch.zeros(2, 6).double()])
    other = GradientStiffness().measure(with_gradients(scaled, torch.cat([labels, labels[:2]]), 3))
    for part in one:
        assert other[part].value == pytest.approx(one[part].value, rel=1e-9)


@pytest.mark.parametrize("case", CLASSIFIERS, ids=lambda case: case.name)
def test_both_equal_the_definitions_on_models(case):
    built = case.build()
    x, y = built.batch
    torch.backends.mha.set_fastpath_enabled(False)  # its kernel has no gradient
    try:
        G = sample_gradients(built.model.eval(), built.loss, x, y).detach()
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    readings = tv.measure(built.model, loss=built.loss, batch=built.batches, what=["grad.stiffness", "grad.per_class"])
    for part, value in by_hand(G, y).items():
        reading = readings[f"grad.per_class.{part}"]
        assert reading.keys == tuple(str(c) for c in range(int(y.max()) + 1))
        assert reading.value.tolist() == pytest.approx(value, rel=1e-6)
    assert readings["grad.stiffness.within"].value == pytest.approx(
        pair_cosines(G, lambda i, j: y[i] == y[j]), rel=1e-6
    )


def test_the_matrix_holds_all_cosines():
    G, labels = normal(12, 5), torch.arange(12) % 3
    cosines = GradientPerClass().measure(with_gradients(G, labels, 3))["cosine"].details["cosines"]
    means = torch.stack([G[labels == c].mean(0) for c in range(3)])
    expected = torch.nn.functional.cosine_similarity(means[:, None], means[None], dim=2)
    assert torch.allclose(cosines, expected, rtol=0, atol=1e-12)
    pairs = GradientPerClass().measure(with_gradients(G, labels, 3))["cosine"].details["pairs"]
    assert pairs.tolist() == [cosines[0, 1], cosines[0, 2], cosines[1, 2]]


def test_a_mean_counts_samples_with_a_gradient_of_zero():
    G, labels = torch.tensor([[4.0, 0.0], [0.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 0, 1])
    reading = GradientPerClass().measure(with_gradients(G, labels, 2))["norm"]
    assert reading.value.tolist() == pytest.approx([2, 2])


def test_class_sizes_do_not_enter():
    G, labels = normal(6, 5), torch.tensor([0, 0, 0, 1, 1, 1])
    more, more_labels = torch.cat([G, G[:3], G[:3]]), torch.cat([labels, labels[:3], labels[:3]])
    one, other = (GradientPerClass().measure(with_gradients(*given, 2)) for given in [(G, labels), (more, more_labels)])
    for part in one:
        assert other[part].value.tolist() == pytest.approx(one[part].value.tolist(), rel=1e-12)


def test_classes_that_cancel_stand_apart_as_a_simplex():
    corners = torch.eye(4, dtype=torch.float64) - 0.25
    readings = GradientPerClass().measure(with_gradients(corners, torch.arange(4), 4))
    for part in ("cosine", "min_cosine"):
        assert readings[part].value.tolist() == pytest.approx([-1 / 3] * 4, rel=1e-12)


def test_absent_classes_and_those_without_a_direction_are_named():
    G, labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), torch.tensor([0, 3, 4])
    readings = GradientPerClass().measure(with_gradients(G, labels, 5))
    assert readings["norm"].keys == ("0", "3", "4")
    assert readings["norm"].details["absent"] == ["1", "2"]
    assert readings["cosine"].keys == ("0", "3")
    assert readings["cosine"].details["left_out"] == {"4": "its mean gradient is zero"}


@pytest.mark.parametrize("diagnostic", [GradientStiffness(), GradientPerClass()], ids=lambda d: d.name)
@pytest.mark.parametrize(
    ("gradients", "labels", "options", "reason"),
    [
        (torch.ones(4, 3), None, {}, "no class labels"),
        (torch.ones(4, 3), torch.arange(4) % 2, {"optional_bytes": 0}, "sums per class"),
        (torch.full((4, 3), torch.nan), torch.arange(4) % 2, {}, "hold NaN or Inf"),
    ],
)
def test_missing_with_the_reason(diagnostic, gradients, labels, options, reason):
    with pytest.raises(Missing, match=reason):
        diagnostic.measure(with_gradients(gradients, labels, None if labels is None else 2, **options))


def test_a_part_may_be_missing_alone():
    singles = GradientStiffness().measure(with_gradients(torch.eye(2), torch.arange(2), 2))
    assert "no class has two samples" in singles["within"].missing
    assert singles["between"].value == 0
    one_class = with_gradients(torch.ones(3, 2), torch.zeros(3).long(), 2)
    stiffness, per_class = GradientStiffness().measure(one_class), GradientPerClass().measure(one_class)
    assert stiffness["within"].value == pytest.approx(1)
    assert "fewer than two classes" in stiffness["between"].missing
    assert per_class["norm"].value.tolist() == pytest.approx([2**0.5])
    assert "1 classes have a mean gradient" in per_class["cosine"].missing
