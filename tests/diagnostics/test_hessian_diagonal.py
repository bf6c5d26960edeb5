import numpy as np
import pytest
import torch
from cases import CASES, dense_hessian
from spectra import measured

from trainvitals.diagnostics.registry import select

CASE = {case.name: case for case in CASES}


def exact_diagonal(built):
    return dense_hessian(built.model, built.loss, built.batch).diagonal().numpy()


def by_tensor(built, values):
    sizes = {n: p.numel() for n, p in built.model.named_parameters() if p.requires_grad}
    return dict(zip(sizes, np.split(values, np.cumsum(list(sizes.values()))[:-1]), strict=True))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_many_probes_give_the_dense_diagonal(case):
    built = case.build()
    exact = exact_diagonal(built)
    found = measured(built, ["hessian.diagonal"], options={"hessian.diagonal": {"num_probes": 400, "vector": True}})
    mean, rms = found["hessian.diagonal.mean"], found["hessian.diagonal.rms"]
    parts = by_tensor(built, exact)
    assert mean.keys == rms.keys == tuple(parts)
    assert (np.abs(mean.value - [p.mean() for p in parts.values()]) <= 4 * mean.error + 1e-12).all()
    assert (np.abs(rms.value - [np.sqrt((p**2).mean()) for p in parts.values()]) <= 4 * rms.error + 1e-12).all()
    off = np.abs(mean.details["diagonal"] - exact) <= 4 * mean.details["diagonal_error"] + 1e-12
    assert off.mean() > 0.99
    assert mean.hvps == 400
    assert rms.hvps == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "cnn_batchnorm", "transformer", "mse"])
def test_twice_the_error_holds_in_nine_of_ten_seeds(name):
    built = CASE[name].build()
    parts = by_tensor(built, exact_diagonal(built))
    exact = {"mean": [p.mean() for p in parts.values()], "rms": [np.sqrt((p**2).mean()) for p in parts.values()]}
    inside = {"mean": [], "rms": []}
    for seed in range(40):
        found = measured(built, ["hessian.diagonal"], seed=seed)
        for part, shares in inside.items():
            reading = found[f"hessian.diagonal.{part}"]
            shares.append(np.abs(reading.value - exact[part]) <= 2 * reading.error + 1e-12)
    assert np.mean(inside["mean"]) >= 0.9
    assert np.mean(inside["rms"]) >= 0.9


def test_the_vector_is_given_only_when_asked_for():
    built = CASE["mlp"].build()
    assert "diagonal" not in measured(built, ["hessian.diagonal"])["hessian.diagonal.mean"].details


def test_an_overflowed_loss_is_missing_with_the_reason():
    built = CASE["mlp"].build()
    with torch.no_grad():
        next(built.model.parameters()).fill_(float("nan"))
    for reading in measured(built, ["hessian.diagonal"]).values():
        assert reading.value is None
        assert "not finite" in reading.missing


def test_bad_options_are_told_before_training():
    with pytest.raises(ValueError, match="num_probes ≥ 3"):
        select({"hessian.diagonal": {"num_probes": 2}})
