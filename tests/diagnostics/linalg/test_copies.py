import numpy as np
import pytest
import torch
from linalg_helpers import Diagonal

from trainvitals.diagnostics.linalg.copies import Copies
from trainvitals.diagnostics.linalg.krylov import KrylovBasis


@pytest.mark.parametrize("mass", [1e-1, 1e-4, 1e-8])
def test_no_copy_is_ruled_out_that_the_start_vector_could_have_seen(mass):
    # Christoffel's function never lies below the mass that is there
    values = torch.cat([torch.linspace(-1, 1, 300), torch.tensor([2.0])]).double()
    start = torch.cat([torch.full((300,), ((1 - mass) / 300) ** 0.5), torch.tensor([mass**0.5])]).double()
    basis = KrylovBasis(Diagonal(values), breakdown=1e-14)
    basis.start(start)
    dimension = 10  # by which a probability of 1e-3 is a mass of π/2 · 1e-7
    for taken in range(1, 40):
        basis.step()
        T = basis.latest(taken)
        if np.linalg.eigvalsh(T)[-1] > 1.9:
            break
        ruled_out = Copies(1, 1.0, 2.0).ruled_out(T, dimension)
        assert not ruled_out or mass < np.pi / 2 * 1e-7
    else:
        pytest.fail("the chain never saw it")


def test_a_copy_is_ruled_out_once_the_chain_has_been_long_enough():
    values = torch.linspace(-1, 1, 5000, dtype=torch.float64)
    basis = KrylovBasis(Diagonal(values))
    basis.start_random(torch.Generator().manual_seed(0))
    outcome = []
    for taken in range(1, 31):
        basis.step()
        outcome.append(Copies(1, 1.5, 2.0).ruled_out(basis.latest(taken), 5000))
    assert 5 < outcome.index(True) < 15
    assert all(outcome[outcome.index(True) :])
