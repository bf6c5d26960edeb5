"""Periods against brute force over powers of two, and against the closed forms that they come from."""

import itertools
import math

import numpy as np
import pytest

from trainvitals.probes.pacing import Item, median, paced, relaxed, spending


def item(family, own, value=1.0, base=1.0, shortest=1e-3, present=None):
    return Item(family, own, value, base, shortest, present)


def staleness(periods, items):
    return sum(items[name].value * period / 2 for name, period in periods.items())


def test_alone_periods_go_with_the_root_of_cost_over_value():
    items = {"a": item("a", 1.0), "b": item("b", 4.0), "c": item("c", 4.0, value=4.0)}
    assert relaxed(items, {}) == pytest.approx({"a": 1.0, "b": 2.0, "c": 1.0})


def test_a_family_joins_as_long_as_that_shortens_its_period():
    items = {"a": item("f", 0.01), "b": item("f", 0.05), "c": item("f", 9.0)}
    found = relaxed(items, {"f": 2.0})
    common = math.sqrt((2.0 + 0.06) / 2)
    assert found == pytest.approx({"a": common, "b": common, "c": 3.0})


def test_spending_counts_what_is_shared_once_at_the_pace_of_the_fastest():
    items = {"a": item("f", 0.1), "b": item("f", 0.4), "c": item("g", 1.0)}
    periods = {"a": 1.0, "b": 2.0, "c": 4.0}
    assert spending(periods, items, {"f": 0.5, "g": 1.0}) == pytest.approx(0.1 + 0.2 + 0.25 + 0.5 + 0.25)


@pytest.mark.parametrize("seed", range(8))
def test_periods_are_close_to_the_best_that_brute_force_finds(seed):
    rng = np.random.default_rng(seed)
    items = {
        name: item("fg"[index % 2], float(10 ** rng.uniform(-3, -1)), float(10 ** rng.uniform(-1, 1)))
        for index, name in enumerate("abcd")
    }
    shared, share = {"f": 0.05, "g": 0.01}, 0.05
    found, stretch = paced(items, shared, share, longest=64.0)
    assert stretch == 1.0
    assert spending(found, items, shared) <= share
    choices = [dict(zip(items, c, strict=True)) for c in itertools.product([2.0**k for k in range(-4, 7)], repeat=4)]
    best = min(staleness(c, items) for c in choices if spending(c, items, shared) <= share)
    # one λ moves several periods at once, so that up to an octave of the money may be left over
    assert best <= staleness(found, items) <= 2.0 * best


def test_no_period_is_shorter_than_asked_nor_longer_where_that_can_be_paid():
    items = {"a": item("a", 1e-6, shortest=5.0, base=5.0), "b": item("b", 0.5)}
    found, stretch = paced(items, {}, 0.1, longest=12.0)
    assert (found["a"], stretch) == (5.0, 1.0)
    assert found["b"] <= 12.0


def test_the_longest_gives_way_where_it_cannot_be_paid():
    items = {"a": item("a", 1.0), "b": item("b", 0.001)}
    found, stretch = paced(items, {}, 0.01, longest=12.0)
    assert spending(found, items, {}) <= 0.01
    assert stretch >= 1.0 / 0.01 / 12.0 / 2
    assert found["a"] >= 100.0


@pytest.mark.parametrize(("cost", "stays"), [(0.8, True), (0.7, True), (0.5, False), (0.9, False)])
def test_a_present_plan_stays_while_it_can_be_paid_and_spends_most_of_what_it_may(cost, stays):
    found, _ = paced({"a": item("a", cost, present=8.0)}, {}, 0.1, longest=1000.0)
    assert found["a"] == (8.0 if stays else {0.5: 8.0, 0.9: 16.0}[cost])
    found, _ = paced({"a": item("a", cost, present=16.0)}, {}, 0.1, longest=1000.0)
    assert found["a"] == (16.0 if cost == 0.9 else 8.0)


def test_all_periods_are_powers_of_two_of_their_base():
    rng = np.random.default_rng(1)
    items = {
        str(i): item("f", float(rng.uniform(0.001, 0.1)), float(rng.uniform(0.1, 10)), base=0.3) for i in range(20)
    }  # fmt: skip
    found, _ = paced(items, {"f": 0.02}, 0.05, longest=100.0)
    octaves = [math.log2(period / 0.3) for period in found.values()]
    assert octaves == pytest.approx([round(o) for o in octaves], abs=1e-9)


def test_the_median_of_an_even_number_is_the_upper_one():
    assert median([1.0, 2.0, 3.0, 4.0]) == 3.0
