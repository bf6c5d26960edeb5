import numpy as np
import pytest
import torch
from cases import CASES, dense_hessian
from quadratics import linear_regression

import trainvitals as tv

NAME = "hessian.per_layer"


def measured(built, seed=0, **options):
    found = tv.measure(built.model, loss=built.loss, batch=built.batches, what={NAME: options}, seed=seed)
    return found[f"{NAME}.top"], found[f"{NAME}.trace"]


def dense_blocks(case):
    """Blocks of the dense Hessian by owning module, in the order of the parameters."""
    built = case.build()
    H = dense_hessian(built.model, built.loss, built.batch)
    trainable = [(n, p) for n, p in built.model.named_parameters() if p.requires_grad]
    owners = [n.rpartition(".")[0] for n, p in trainable for _ in range(p.numel())]
    names = list(dict.fromkeys(owners))
    picks = [torch.tensor([o == name for o in owners]) for name in names]
    return {name: H[pick][:, pick] for name, pick in zip(names, picks, strict=True)}


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_equals_the_blocks_of_the_dense_hessian(case):
    blocks = dense_blocks(case)
    top, trace = measured(case.build(), tol=1e-4, max_iterations=200)
    expected = np.array([float(torch.linalg.eigvalsh(block)[-1]) for block in blocks.values()])
    assert top.keys == trace.keys == tuple(blocks)
    np.testing.assert_allclose(top.value, expected, rtol=1e-3, atol=1e-5 * expected.max())
    assert (np.abs(top.value - expected) <= top.error + 1e-6 * expected.max()).all()
    assert top.converged
    traces = np.array([float(block.trace()) for block in blocks.values()])
    assert (np.abs(trace.value - traces) <= 4 * trace.error).all()


@pytest.mark.slow
def test_traces_lie_within_twice_their_errors_in_nine_of_ten_seeds():
    case = CASES[7]
    exact = np.array([float(block.trace()) for block in dense_blocks(case).values()])
    built = case.build()
    found = [measured(built, seed=seed, max_iterations=2)[1] for seed in range(40)]
    inside = np.array([np.abs(f.value - exact) <= 2 * f.error for f in found])
    assert (inside.sum(0) >= 36).all()
    assert len({f.value[0] for f in found}) == 40


def test_blocks_by_pattern():
    built = CASES[0].build()
    top, trace = measured(built, blocks={"weights": "*.weight", "head": "4.*"})
    H = dense_hessian(CASES[0].build().model, built.loss, built.batch)
    owners = [n for n, p in built.model.named_parameters() for _ in range(p.numel())]
    for index, pick in enumerate(([n.endswith("weight") for n in owners], [n.startswith("4.") for n in owners])):
        block = H[torch.tensor(pick)][:, torch.tensor(pick)]
        assert top.value[index] == pytest.approx(float(torch.linalg.eigvalsh(block)[-1]), rel=1e-2)
        assert abs(trace.value[index] - float(block.trace())) <= 4 * trace.error[index]
    assert top.keys == ("weights", "head")


def test_a_pattern_that_matches_nothing_gives_near_names():
    top, trace = measured(CASES[0].build(), blocks={"head": "4.wieght"})
    for found in (top, trace):
        assert "'4.wieght'" in found.missing
        assert "near names: 4.weight" in found.missing


@pytest.mark.parametrize("seed", range(8))
def test_a_start_across_from_the_first_direction_does_not_end_on_the_second(seed):
    top, _ = measured(CASES[0].build(), seed=seed, blocks={"head": "4.*"}, num_probes=2)  # λ1 = 0.484, λ2 = 0.418
    assert top.value[0] == pytest.approx(0.4836, rel=1e-2)


def test_an_overflow_says_so():
    built = linear_regression(dtype=torch.float32)[0]
    built.batches[0][:] *= 1e30
    top, trace = measured(built)
    assert "not finite" in top.missing
    assert "not finite" in trace.missing


@pytest.mark.parametrize("options", [{"tol": 0}, {"max_iterations": 0}, {"num_probes": 1}])
def test_bad_options_are_told(options):
    with pytest.raises(ValueError, match="expected tol > 0"):
        measured(CASES[0].build(), **options)
