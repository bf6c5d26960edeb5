"""Both rules of the ledger: the share since the start, and the share of any minute."""

import pytest

from trainvitals.probes.ledger import Ledger


def test_the_first_minute_may_be_spent_at_once_and_no_more():
    ledger = Ledger(0.1, now=100.0)
    assert ledger.can_pay(6.0, 100.0)
    ledger.charge(6.0, 106.0)
    assert not ledger.can_pay(0.01, 110.0)
    assert not ledger.can_pay(0.01, 159.0)
    assert ledger.can_pay(0.5, 172.0)


def test_what_was_saved_for_long_is_not_spent_in_one_minute():
    ledger = Ledger(0.1, now=0.0)
    for second in range(1000, 1006):
        assert ledger.can_pay(1.0, float(second))
        ledger.charge(1.0, float(second))
    assert not ledger.can_pay(1.0, 1006.0)
    assert ledger.can_pay(1.0, 1062.0)


def test_what_no_minute_can_pay_waits_for_savings_and_leaves_room_for_the_rest():
    ledger = Ledger(0.1, now=0.0)
    assert not ledger.can_pay(20.0, 100.0)
    assert ledger.can_pay(20.0, 190.0)  # its own 20 s are wall time too
    ledger.charge(20.0, 210.0)
    assert ledger.can_pay(0.5, 211.0)
    assert ledger.share_of_last_minute(211.0) == pytest.approx(20 / 60)


def test_shares_are_of_the_time_that_there_was():
    ledger = Ledger(0.5, now=10.0)
    ledger.charge(3.0, 13.0)
    assert ledger.share_so_far(40.0) == pytest.approx(0.1)
    assert ledger.share_of_last_minute(40.0) == pytest.approx(0.1)
    assert ledger.share_of_last_minute(100.0) == 0.0
    assert ledger.saved(40.0) == pytest.approx(12.0)


def test_a_debt_by_one_that_was_dearer_than_foreseen_is_paid_back_with_half_of_the_share():
    ledger = Ledger(0.1, now=0.0)
    ledger.charge(30.0, 30.0)
    now, spent = 30.0, 0.0
    while ledger.saved(now) < 0:
        now += 1.0
        if ledger.can_pay(0.2, now):
            ledger.charge(0.2, now)
            spent += 0.2
    assert spent == pytest.approx(0.05 * (now - 30.0), rel=0.1)
    assert now == pytest.approx(30.0 / 0.05, rel=0.1)
