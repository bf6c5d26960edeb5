"""Cosine distances against explicit mini-batches, and their errors against the spread over probes."""

import pytest
import torch
from cases import CASES
from fake_snapshot import with_gradients
from naive import sample_gradients

import trainvitals as tv
from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.gradient_direction import GradientDirection


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(G):
    batches = [G[k::16].sum(0) for k in range(16)]

    def apart(a, b):
        return 1 - float(a @ b / (a.norm() * b.norm()))

    pairs = [apart(batches[j], batches[k]) for j in range(16) for k in range(j)]
    whole = [apart(b, G.sum(0)) for b in batches]
    return {"variance": sum(pairs) / len(pairs), "error": sum(whole) / 16}


def measured(G, **options):
    return GradientDirection().measure(with_gradients(G, **options))


@pytest.mark.parametrize("num_samples", [16, 50, 64])
def test_distances_equal_those_of_explicit_mini_batches(num_samples):
    G = normal(num_samples, 7) + 0.5
    for part, value in by_hand(G).items():
        assert measured(G)[part].value == pytest.approx(value, rel=1e-12)
        assert measured(G)[part].details["batch_size"] == num_samples / 16


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_distances_equal_the_definition_on_models(case):
    built = case.build()
    x, y = built.batch
    model = built.model.eval()
    torch.backends.mha.set_fastpath_enabled(False)  # its kernel has no gradient
    try:
        expected = by_hand(sample_gradients(model, built.loss, x, y).detach())
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    readings = tv.measure(built.model, loss=built.loss, batch=built.batches, what=["grad.direction"])
    for part, value in expected.items():
        assert readings[f"grad.direction.{part}"].value == pytest.approx(value, rel=1e-6)


def test_known_directions():
    alike = normal(1, 5).expand(32, 5)
    for part in ("variance", "error"):
        assert measured(alike)[part].value == pytest.approx(0, abs=1e-12)
    across = torch.eye(16, dtype=torch.float64).repeat(2, 1)  # sixteen mini-batches at right angles
    assert measured(across)["variance"].value == pytest.approx(1, abs=1e-12)
    assert measured(across)["error"].value == pytest.approx(1 - 16**-0.5, abs=1e-12)


def test_lengths_of_mini_batches_matter_to_the_whole_only():
    lengths = torch.linspace(0.5, 3, 16, dtype=torch.float64)[:, None]
    one, other = measured(normal(16, 7) + 1), measured(lengths * (normal(16, 7) + 1))
    assert other["variance"].value == pytest.approx(one["variance"].value, rel=1e-12)
    assert other["error"].value != pytest.approx(one["error"].value, rel=1e-3)


# From gradients that agree (variance 0.3) to noise alone, where the jackknife is about a third too wide.
@pytest.mark.parametrize(("signal", "num_samples", "ratio"), [(1.0, 64, 1.0), (0.3, 64, 1.05), (0.05, 64, 1.45)])
@pytest.mark.parametrize("part", ["variance", "error"])
def test_the_error_is_the_spread_over_probes(signal, num_samples, ratio, part):
    scales = torch.linspace(0.5, 2, 50, dtype=torch.float64)
    readings = [measured(signal + scales * normal(num_samples, 50, seed=s))[part] for s in range(60)]
    values = torch.tensor([r.value for r in readings])
    errors = torch.tensor([r.error for r in readings])
    assert float(errors.mean() / values.std()) == pytest.approx(ratio, rel=0.3)  # 9 % of noise in the spread
    inside = int(((values - values.mean()).abs() <= 2 * errors).sum())
    assert inside >= 52


@pytest.mark.parametrize(
    ("gradients", "options", "reason"),
    [
        (torch.ones(15, 3), {}, "15 samples are fewer than the 16 mini-batches"),
        (torch.ones(16, 3), {"optional_bytes": 0}, "sums per block"),
        (torch.full((16, 3), torch.nan), {}, "hold NaN or Inf"),
        (torch.zeros(16, 3), {}, "gradient of a mini-batch is zero"),
        (torch.tensor([[1.0], [-1.0]]).repeat(8, 1), {}, "gradient of the whole probe is zero"),
    ],
)
def test_missing_with_the_reason(gradients, options, reason):
    with pytest.raises(Missing, match=reason):
        measured(gradients, **options)
