"""Products of gradients that come in pieces against the matrix of all."""

import pytest
import torch

from trainvitals.diagnostics import gradient_gram
from trainvitals.diagnostics.gradient_gram import GradientGram, num_chosen


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("sizes", [(20,), (7, 7, 6), (1,) * 20, (19, 1)], ids=str)
@pytest.mark.parametrize("chosen", [range(20), [0, 6, 7, 19], [13]], ids=["all", "some", "one"])
def test_products_do_not_depend_on_the_pieces(sizes, chosen, monkeypatch):
    monkeypatch.setattr(gradient_gram, "_COLUMNS", 3)  # 8 parameters in pieces of 3, 3 and 2
    G, chosen = normal(20, 8), torch.tensor(list(chosen))
    gram = GradientGram(chosen)
    for piece in G.split(sizes):
        gram.add(piece)
    assert torch.allclose(gram.matrix(), G[chosen] @ G[chosen].T, rtol=0, atol=1e-12)
    assert gram.matrix() is gram.matrix()


def test_products_of_float32_gradients_are_formed_in_float64():
    G = normal(5, 1000).float()
    gram = GradientGram(torch.arange(5))
    gram.add(G)
    assert torch.equal(gram.matrix(), gram.matrix().T)
    assert torch.allclose(gram.matrix(), G.double() @ G.double().T, rtol=1e-12, atol=1e-12)


def test_only_chosen_gradients_are_kept():
    gram = GradientGram(torch.tensor([1]))
    for piece in normal(100, 8).split(10):
        gram.add(piece)
    assert sum(len(rows) for rows in gram._rows) == 1
    gram.matrix()
    assert gram._rows == []


def test_nothing_chosen_gives_an_empty_matrix():
    gram = GradientGram(torch.arange(0))
    gram.add(normal(3, 2))
    assert gram.matrix().shape == (0, 0)


def test_samples_are_bounded_by_number_and_by_memory():
    assert num_chosen(10, 8) == 10
    assert num_chosen(10_000, 8) == gradient_gram.MAX_SAMPLES
    assert num_chosen(10_000, 1000, max_bytes=2500) == 2
    assert num_chosen(10_000, 1000, max_bytes=999) == 0
