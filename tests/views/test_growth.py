import numpy as np

from trainvitals.views.growth import outlier_layers, robust_z


def test_the_layer_that_grows_alone_is_named():
    growth = {f"layer{i}": 1 + 0.01 * i for i in range(8)} | {"head": 5.0}
    assert list(outlier_layers(growth)) == ["head"]


def test_layers_that_grow_together_are_not():
    assert outlier_layers({f"layer{i}": 5 + 0.1 * i for i in range(8)}) == {}


def test_shrinking_layers_do_not_grow():
    assert outlier_layers({f"layer{i}": 1 + 0.01 * i for i in range(8)} | {"head": 0.01}) == {}


def test_too_few_layers_or_equal_ones_tell_nothing():
    assert outlier_layers({"a": 1.0, "b": 9.0}) == {}
    assert outlier_layers(dict.fromkeys("abcdef", 1.0)) == {}


def test_values_without_a_logarithm_are_left_out():
    growth = {f"layer{i}": 1 + 0.01 * i for i in range(8)} | {"dead": 0.0, "nan": np.nan, "head": 5.0}
    assert list(outlier_layers(growth)) == ["head"]


def test_the_score_matches_its_definition():
    values = np.array([1.0, 2.0, 4.0, 8.0, 100.0])
    mad = np.median(np.abs(values - 4.0))
    np.testing.assert_allclose(robust_z(values), 0.6745 * (values - 4.0) / mad)
