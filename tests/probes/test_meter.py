"""The meter: every second counted once, shared parts with those who share them."""

import pytest

from trainvitals.probes.meter import Meter


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_parts_are_not_counted_as_the_own_time_of_whoever_ran_them():
    clock = Clock()
    meter = Meter(clock)
    with meter.of("top"):
        clock.now += 1
        with meter.part("train pass"):
            clock.now += 10
            with meter.part("graph", maker="bottom"):
                clock.now += 100
        clock.now += 2
    with meter.of("bottom"):
        clock.now += 5
    own, shared = meter.split({"top": "a", "bottom": "b"})
    assert (own, shared) == ({"top": 3.0, "bottom": 5.0}, {"a": 10.0, "b": 100.0})
    assert meter.seconds("train pass") == 10.0


def test_a_computation_that_one_alone_has_used_is_its_own():
    def lanczos():
        return None

    clock = Clock()
    meter = Meter(clock)
    for users, expected in ((["top"], ({"top": 7.0, "bottom": 0.0}, {"p": 0.0})),
                            (["bottom"], ({"top": 0.0, "bottom": 0.0}, {"p": 7.0}))):  # fmt: skip
        for name in users:
            with meter.of(name):
                if users == ["top"]:
                    with meter.part(lanczos):
                        clock.now += 7
                meter.used(lanczos)
        assert meter.split({"top": "p", "bottom": "p"}) == expected


def test_time_is_counted_where_a_measurement_fails():
    clock = Clock()
    meter = Meter(clock)
    with pytest.raises(ZeroDivisionError), meter.of("bad"):
        clock.now += 1
        raise ZeroDivisionError
    with meter.of("good"):
        clock.now += 2
    assert meter.split({"bad": "a", "good": "a"})[0] == {"bad": 1.0, "good": 2.0}
