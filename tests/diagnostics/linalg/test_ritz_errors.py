import numpy as np
import pytest

from trainvitals.diagnostics.linalg.ritz_errors import ritz_errors


def test_errors_are_of_second_order_with_a_gap_and_residuals_without():
    values, residuals = np.array([0.0, 5.0, 5.01, 9.0]), np.array([0.1, 0.02, 0.02, 0.1])
    errors = ritz_errors(values, residuals, np.zeros(4))
    assert errors[0] == pytest.approx(0.01 / (5 - 0.02))
    assert errors[1] == errors[2] == 0.02
    assert ritz_errors(values, residuals, np.full(4, 0.01))[1] == pytest.approx(np.sqrt(0.02**2 - 0.01**2) + 0.01)
    assert ritz_errors(np.array([3.0]), np.array([0.5]), np.zeros(1)) == pytest.approx([0.5])  # nothing to see a gap by
