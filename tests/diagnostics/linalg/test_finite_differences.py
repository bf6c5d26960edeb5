import pytest
import torch

from trainvitals.diagnostics.linalg.finite_differences import central_difference


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 2e-3)])
def test_the_derivative_of_a_smooth_function_in_closed_form(dtype, tolerance):
    theta = [torch.tensor([0.3, -1.0], dtype=dtype), torch.tensor([[2.0]], dtype=dtype)]
    v = [torch.tensor([1.0, 2.0], dtype=dtype), torch.tensor([[-1.0]], dtype=dtype)]

    def function(t):
        return [t[0].sin() * t[1][0], t[1] ** 3]

    first, second = central_difference(function, theta, v)
    expected = theta[0].cos() * v[0] * theta[1][0] + theta[0].sin() * v[1][0]
    torch.testing.assert_close(first, expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(second, 3 * theta[1] ** 2 * v[1], rtol=tolerance, atol=tolerance)


def test_the_step_grows_with_the_factor_and_truncation_with_its_square():
    theta, v = [torch.tensor([1.0], dtype=torch.float64)], [torch.tensor([1.0], dtype=torch.float64)]
    errors = [
        float(central_difference(lambda t: [t[0] ** 3], theta, v, factor)[0] - 3) for factor in (1e4, 2e4, 4e4)
    ]  # the error of x³ is h² exactly
    assert errors[1] / errors[0] == pytest.approx(4, rel=1e-3)
    assert errors[2] / errors[0] == pytest.approx(16, rel=1e-3)


def test_the_length_of_the_vector_does_not_matter():
    theta, v = [torch.tensor([1.0, 2.0], dtype=torch.float64)], torch.tensor([1.0, -3.0], dtype=torch.float64)
    found = [central_difference(lambda t: [t[0] ** 2], theta, [scale * v])[0] / scale for scale in (1e-6, 1.0, 1e6)]
    torch.testing.assert_close(found[0], found[1], rtol=1e-7, atol=0)
    torch.testing.assert_close(found[2], found[1], rtol=1e-7, atol=0)


def test_along_zero_it_is_zero_and_along_no_number_none():
    theta = [torch.ones(2)]
    assert central_difference(lambda t: [t[0] ** 2], theta, [torch.zeros(2)])[0].tolist() == [0, 0]
    assert central_difference(lambda t: [t[0] ** 2], theta, [torch.tensor([1.0, torch.nan])])[0].isnan().all()
