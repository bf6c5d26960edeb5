"""Sums by channel against numpy over all rows."""

import numpy as np
import pytest
import torch

from trainvitals.diagnostics.signal_sums import BranchSums, SignalSums


def test_numbers_equal_numpys_and_parts_sum_to_the_whole():
    x = np.random.default_rng(0).normal(size=(6, 4, 5)) * np.arange(1, 6) + 2
    rows = x.reshape(-1, 5)
    whole = SignalSums.of(torch.as_tensor(x))
    parts = SignalSums.of(torch.as_tensor(x[:1])) + SignalSums.of(torch.as_tensor(x[1:]))
    for sums in (whole, parts):
        assert sums.mean_square() == pytest.approx((rows.mean(0) ** 2).mean())
        assert sums.variance() == pytest.approx(rows.var(0).mean())
        assert sums.rms() == pytest.approx((rows**2).mean() ** 0.5)
        assert sums.rms() ** 2 == pytest.approx(sums.mean_square() + sums.variance())


def test_a_constant_has_no_variance_and_scaling_scales():
    constant = SignalSums.of(torch.full((7, 3), 0.1))
    assert constant.variance() == pytest.approx(0, abs=1e-15)
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert SignalSums.of(3 * x).variance() == pytest.approx(9 * SignalSums.of(x).variance())


def test_sums_of_branches_add():
    total = BranchSums(torch.tensor(1.0), torch.tensor(2.0)) + BranchSums(torch.tensor(3.0), torch.tensor(4.0))
    assert (float(total.branch), float(total.stream)) == (4.0, 6.0)
