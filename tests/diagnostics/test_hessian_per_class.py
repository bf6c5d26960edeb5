import numpy as np
import pytest
import torch
from cases import CASES, dense_hessian
from torch import nn

import trainvitals as tv

NAME = "hessian.per_class"
CLASSIFIERS = [case for case in CASES if case.is_classifier]


def measured(built, **options):
    found = tv.measure(built.model, loss=built.loss, batch=built.batches, what={NAME: options})
    return tuple(found[f"{NAME}.{part}"] for part in ("top", "bottom", "ratio"))


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, id=c.name, marks=pytest.mark.slow if c.name == "transformer" else ()) for c in CLASSIFIERS],
)
def test_equals_the_dense_hessian_of_each_class(case):
    built = case.build()
    x, y = built.batch
    ends = []
    for c in range(int(y.max()) + 1):
        H = dense_hessian(case.build().model, built.loss, (x[y == c], y[y == c]))
        values = torch.linalg.eigvalsh(H)
        ends.append((float(values[-1]), float(values[0])))
    top, bottom, ratio = measured(case.build(), tol=1e-5)
    expected_top, expected_bottom = map(np.array, zip(*ends, strict=True))
    scale = 1e-5 * expected_top.max()
    assert top.keys == bottom.keys == ratio.keys == tuple(str(c) for c in range(len(ends)))
    np.testing.assert_allclose(top.value, expected_top, rtol=1e-4)
    np.testing.assert_allclose(bottom.value, expected_bottom, rtol=1e-4, atol=scale)
    np.testing.assert_allclose(ratio.value, np.abs(expected_bottom) / expected_top, rtol=1e-3, atol=1e-5)
    assert (np.abs(top.value - expected_top) <= top.error + scale).all()
    assert (np.abs(bottom.value - expected_bottom) <= bottom.error + scale).all()
    assert top.converged
    assert top.hvps > 0 == bottom.hvps


def test_named_classes_alone_and_those_without_samples_are_told():
    built = CASES[0].build()
    x, y = built.batch
    built.batches = [(x[y != 1], y[y != 1])]
    every, some = measured(built)[0], measured(built, classes=[1, 2])[0]
    assert every.keys == ("0", "2")
    assert every.details["absent"] == some.details["absent"] == [1]
    assert every.details["num_samples"] == [8, 8]
    assert some.keys == ("2",)
    assert some.value[0] == pytest.approx(every.value[1], rel=1e-6)


def test_what_is_undefined_says_why():
    regression = next(c for c in CASES if not c.is_classifier).build()
    assert "not class labels" in measured(regression)[0].missing
    built = CASES[0].build()
    assert "no classes [7]" in measured(built, classes=[7])[0].missing
    x, y = built.batch
    built.batches = [(x[y != 1], y[y != 1])]
    assert "no samples of the classes [1]" in measured(built, classes=[1])[0].missing
    many = nn.Linear(3, 30)
    found = tv.measure(many, loss=nn.functional.cross_entropy, batch=(torch.randn(60, 3), torch.arange(60) % 30),
                       what={NAME: {}})  # fmt: skip
    assert "30 classes" in found[f"{NAME}.top"].missing


@pytest.mark.parametrize("options", [{"classes": []}, {"tol": 0}, {"max_iterations": 1}])
def test_bad_options_are_told(options):
    with pytest.raises(ValueError, match="expected one class or more"):
        measured(CASES[0].build(), **options)
