"""Probe batches: every source that a user may have, drawn without a trace."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, get_worker_info

from trainvitals.probes.probe_batch import probe_batch


def make(source, has_forward=False, max_samples=512):
    return probe_batch(source, argument="train", has_forward=has_forward, max_samples=max_samples)


X, Y = torch.randn(20, 3), torch.arange(20)


def test_a_pair_of_tensors_is_taken_whole_and_copied():
    x = X.clone()
    batch = make((x, Y))
    x.zero_()
    assert batch.num_samples == 20
    torch.testing.assert_close(batch.chunks[0][0], X)
    assert batch.targets is not None
    assert torch.equal(batch.targets, Y)


def test_a_list_of_batches_keeps_its_chunks_and_shares():
    batch = make([(X[:16], Y[:16]), [X[16:], Y[16:]]])
    assert batch.sizes == (16, 4)
    assert batch.shares == (0.8, 0.2)
    assert torch.equal(batch.targets, Y)


@pytest.mark.parametrize("batch_size", [4, 7, 64])
def test_a_loader_gives_the_asked_number_of_different_samples(batch_size):
    loader = DataLoader(TensorDataset(X, Y), batch_size=batch_size, shuffle=True)
    batch = make(loader, max_samples=15)
    assert batch.num_samples == 15
    assert len(batch.sizes) == 1  # joined: the shapes agree
    assert len(set(batch.targets.tolist())) == 15
    assert torch.equal(batch.chunks[0][0], X[batch.targets])


class Augmented(Dataset):
    """Draws from all three global generators and one of its own."""

    def __init__(self) -> None:
        self.own = np.random.default_rng(1)

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int):
        x = torch.randn(3) + random.random() + np.random.rand() + self.own.normal()
        return x.float(), index % 2


def test_drawing_from_a_loader_leaves_every_random_state_alone():
    generator = torch.Generator().manual_seed(5)
    loader = DataLoader(Augmented(), batch_size=8, shuffle=True, generator=generator)

    def states():
        return (
            random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist(),
            generator.get_state().tolist(), str(loader.dataset.own.bit_generator.state),
        )  # fmt: skip

    before = states()
    first = make(loader, max_samples=20)
    assert states() == before
    assert make(loader, max_samples=20).hash == first.hash


def test_dict_batches_need_forward_and_find_their_labels():
    source = {"input_ids": torch.zeros(6, 2, dtype=torch.long), "labels": torch.arange(6)}
    batch = make(source, has_forward=True)
    assert batch.num_samples == 6
    assert torch.equal(batch.targets, torch.arange(6))
    loader = [{"input_ids": torch.zeros(4, n, dtype=torch.long), "labels": torch.arange(4)} for n in (2, 3)]
    batch = make(iter_again(loader), has_forward=True)
    assert batch.sizes == (4, 4)  # not joined: padded to other lengths
    with pytest.raises(ValueError, match="pass forward="):
        make([source])


class iter_again:  # noqa: N801
    def __init__(self, batches) -> None:
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def test_the_hash_names_the_samples():
    assert make((X, Y)).hash == make((X.clone(), Y)).hash
    assert make((X, Y)).hash != make((X + 1e-6, Y)).hash
    assert make((X.bool(), Y)).hash != make((X, Y)).hash


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (iter([(X, Y)]), "iterated again, got the iterator"),
        ([], "it gave none"),
        (iter_again([]), "it gave none"),
        (X, "expected batches .inputs, targets. of tensors"),
        (3, "got int"),
        ((X, Y[:5]), "20 inputs and 5 targets"),
        ((torch.zeros(0, 3), torch.zeros(0)), "expected samples along the first dimension"),
        ([(X, "labels")], "expected batches"),
    ],
)
def test_what_is_no_batch_is_refused_in_words(source, message):
    with pytest.raises(ValueError, match=message):
        make(source)


class Wandering(Dataset):
    """Draws from generators held in a dict and in a helper object; counts its epochs as an iterable does."""

    def __init__(self) -> None:
        self.rngs = {"noise": np.random.default_rng(1)}

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index):
        return torch.full((3,), float(self.rngs["noise"].normal())), index


class Stream(IterableDataset):
    def __iter__(self):
        assert get_worker_info() is None, "drawing must not start workers"
        yield from ((torch.randn(3), i) for i in range(20))


class Batches:
    """A batch sampler with a random state and an epoch of its own."""

    def __init__(self) -> None:
        self.random = random.Random(3)
        self.epoch = 0

    def __len__(self) -> int:
        return 4

    def __iter__(self):
        self.epoch += 1
        yield from ([self.random.randrange(20) for _ in range(5)] for _ in range(4))


@pytest.mark.parametrize(
    "make_loader",
    [
        lambda: DataLoader(Wandering(), 5, shuffle=True),
        lambda: DataLoader(Wandering(), batch_sampler=Batches()),
        lambda: DataLoader(Stream(), 5),
        lambda: DataLoader([(X, Y), (X, Y)], batch_size=None, shuffle=True),  # pyright: ignore[reportArgumentType]
    ],
)
def test_drawing_from_a_loader_of_any_kind_leaves_its_next_pass_as_it_was(make_loader):
    def passes(drawn: bool) -> list:
        torch.manual_seed(0)
        loader = make_loader()
        if drawn:
            assert make(loader, max_samples=8).num_samples >= 8
        batches = [x.tolist() for x, _ in loader]
        return [*batches, getattr(loader.batch_sampler, "epoch", None), torch.get_rng_state().tolist()]

    assert passes(True) == passes(False)


def test_workers_that_stay_are_not_started_by_drawing():
    loader = DataLoader(Stream(), 5, num_workers=1, persistent_workers=True)
    make(loader, max_samples=8)
    assert loader._iterator is None
