import gc
import weakref
from types import SimpleNamespace

import pytest
import torch

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.linalg.graph_bytes import GraphCosts, graph_bytes


def test_a_storage_counts_once_and_what_is_there_anyway_not_at_all():
    W = torch.randn(10, 10, requires_grad=True)
    x = torch.randn(5, 10)
    whole = 4 * 50
    assert graph_bytes(lambda: [(x @ W).exp()], [W, x]) == whole  # the result is saved, x and W are there
    assert graph_bytes(lambda: [(x.clone() @ W).exp()], [W]) == 2 * whole
    assert graph_bytes(lambda: [h := (x @ W).exp(), h[:1]], [W, x]) == whole  # a view of it


def test_a_double_backward_graph_is_whole_and_let_go():
    w = torch.randn(1000, requires_grad=True)
    kept = []

    def build():
        (g,) = torch.autograd.grad(w.exp().sum(), w, create_graph=True)
        kept.append(weakref.ref(g))
        return [g]

    first_order = graph_bytes(lambda: [w.exp().sum()], [w])
    assert graph_bytes(build, [w]) >= first_order + 4000  # the gradient at least
    gc.collect()
    assert kept[0]() is None


def batch(n, fails=()):
    def first(count):
        if count in fails:
            raise RuntimeError("expected more than 1 value per channel")
        return batch(count)

    return SimpleNamespace(num_samples=n, first=first)


def costs(limit, *sizes, fails=()):
    return GraphCosts(lambda b: 100 + 10 * b.num_samples, [batch(n, fails) for n in sizes], limit)


def test_bytes_are_a_line_in_the_number_of_samples():
    found = costs(1000, 64, 8)
    assert [found.of(n) for n in (1, 2, 64)] == [110, 120, 740]


@pytest.mark.parametrize(("limit", "size"), [(740, 64), (739, 32), (420, 32), (419, 22), (110, 1)])
def test_the_largest_pieces_of_like_size_that_fit_are_found(limit, size):
    found = costs(limit, 64, 8)
    assert found.most_samples() == (size, 100 + 10 * size)


def test_where_graphs_grow_faster_than_the_first_two_tell_pieces_get_smaller():
    found = GraphCosts(lambda b: 100 + b.num_samples**2, [batch(64)], 1000)
    size, num_bytes = found.most_samples()
    assert num_bytes == 100 + size**2 <= 1000
    assert size >= 8


def test_too_little_for_one_sample_or_for_a_batch_that_is_taken_whole():
    with pytest.raises(Missing, match="one sample takes 110 bytes"):
        costs(109, 64).most_samples()
    whole = costs(200, 64, fails=(1,))  # known by itself alone: 740 bytes, 12 a sample, rounded up
    with pytest.raises(Missing, match="which the model does not take in pieces, takes 768 bytes"):
        whole.most_samples()
