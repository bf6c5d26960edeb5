import pytest
from cases import CASES
from spectra import exact_spectrum, measured

from trainvitals.diagnostics.registry import select

CASE = {case.name: case for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_trace_lies_within_three_errors_of_the_dense_trace(case):
    found = measured(case.build(), ["hessian.trace"])["hessian.trace"]
    assert abs(found.value - exact_spectrum(case).sum()) <= 3 * found.error


@pytest.mark.slow
@pytest.mark.parametrize("name", CASE)
def test_trace_lies_within_twice_its_error_in_nine_of_ten_seeds(name):
    exact = exact_spectrum(CASE[name]).sum()
    built = CASE[name].build()
    found = [measured(built, ["hessian.trace"], seed=seed)["hessian.trace"] for seed in range(40)]
    assert sum(abs(f.value - exact) <= 2 * f.error for f in found) >= 36
    assert len({f.value for f in found}) > 20  # the seed matters; where all is deflated it does not


def test_trace_is_the_same_with_and_without_the_top_and_cheaper_with_it():
    built = CASE["mlp"].build()
    alone = measured(built, ["hessian.trace"])["hessian.trace"]
    for others in (["hessian.top"], ["hessian.bottom"], ["hessian.top", "hessian.bottom", "hessian.density"]):
        found = measured(built, [*others, "hessian.trace"])["hessian.trace"]
        assert found.value == pytest.approx(alone.value, rel=1e-12), others
        assert found.error == pytest.approx(alone.error, rel=1e-9)
    grown = alone.details["num_deflated"] - 16
    extra = grown + (grown > 0)  # one product takes the chain up again
    assert alone.hvps == alone.details["num_probes"] + 16 + extra
    together = measured(built, ["hessian.top", "hessian.trace"])
    assert together["hessian.trace"].hvps == alone.hvps - 16
    plain = measured(built, ["hessian.trace"], options={"hessian.trace": {"num_deflated": 0}})["hessian.trace"]
    assert plain.hvps == plain.details["num_probes"]
    assert plain.error > alone.error


@pytest.mark.parametrize("method", ["hutchinson", "hutch++", "xtrace"])
def test_every_method_lies_within_three_errors_of_the_dense_trace(method):
    case = CASE["uneven"]
    found = measured(case.build(), ["hessian.trace"], options={"hessian.trace": {"method": method}})["hessian.trace"]
    assert abs(found.value - exact_spectrum(case).sum()) <= 3 * found.error
    assert found.hvps == 48
    assert found.details["method"] == method


def test_one_percent_takes_fewer_products_than_probes_alone():
    case = CASE["uneven"]
    options = {"tol": 0.01, "max_probes": 200}
    built = case.build()
    grown = measured(built, {"hessian.trace": options})["hessian.trace"]
    fixed = measured(built, {"hessian.trace": options | {"method": "hutchinson"}})["hessian.trace"]
    assert grown.converged
    assert abs(grown.value - exact_spectrum(case).sum()) <= 3 * grown.error
    assert grown.hvps < 0.7 * fixed.hvps


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"engine": "magic"}, "'native', 'pyhessian'"),
        ({"min_probes": 1}, "at least two probes"),
        ({"method": "magic"}, "'auto', 'hutchinson', 'hutch\\+\\+', 'xtrace'"),
        ({"method": "xtrace", "num_deflated": 0, "min_probes": 2, "max_probes": 5}, "≥ 6"),
    ],
)
def test_bad_options_are_told_before_training(options, words):
    with pytest.raises(ValueError, match=words):
        select({"hessian.trace": options})
