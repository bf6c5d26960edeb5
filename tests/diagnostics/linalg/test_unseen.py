import numpy as np
import pytest
import torch
from linalg_helpers import Diagonal

from trainvitals.diagnostics.linalg.krylov import KrylovBasis
from trainvitals.diagnostics.linalg.unseen import chance_unseen


def chain(values, num_steps, seed=0):
    basis = KrylovBasis(Diagonal(values))
    basis.start_random(torch.Generator().manual_seed(seed))
    for _ in range(num_steps):
        basis.step()
    return basis.latest(num_steps)


BULK = torch.linspace(-1, 1, 2000, dtype=torch.float64)


def test_the_chance_falls_with_the_steps_and_with_the_distance():
    chances = [chance_unseen(chain(BULK, m), 2.0, 2000) for m in (5, 10, 15)]
    assert chances == sorted(chances, reverse=True)
    assert chances[-1] < 1e-3
    T = chain(BULK, 12)
    assert chance_unseen(T, 3.0, 2000) < chance_unseen(T, 1.5, 2000) < chance_unseen(T, 1.01, 2000)


def test_a_value_that_shows_is_not_called_unseen_in_vain():
    values = torch.cat([BULK, torch.tensor([5.0]).double()])
    assert chance_unseen(chain(values, 12), 4.0, 2001) == 1.0


@pytest.mark.parametrize("num_steps", [4, 6, 8])
def test_the_bound_holds_over_seeds(num_steps):
    # an eigenvalue at 2 that a run says to exclude at level p may be there in a share p of runs at most
    values = torch.cat([BULK, torch.tensor([2.0]).double()])
    chances = np.array([chance_unseen(chain(values, num_steps, s), 2.0, 2001) for s in range(300)])
    for level in (0.5, 0.2, 0.05):
        assert (chances <= level).mean() <= level + 3 * np.sqrt(level * (1 - level) / 300)
