import pytest
import torch
from cases import CASES
from torch import nn

from trainvitals.diagnostics.base import Missing
from trainvitals.probes.bystander import bystander
from trainvitals.probes.micro_batches import micro_batches
from trainvitals.probes.subject import make_subject


def cut(model, loss, batch, most, mode="eval", forward=None):
    subject = make_subject(model, loss=loss, forward=forward, train=batch, mode=mode, call="test")
    with bystander(subject.model, mode=mode):
        return micro_batches(subject, subject.train.chunks[0], subject.train.sizes[0], most)


@pytest.mark.parametrize(
    ("most", "sizes"), [(24, (24,)), (12, (12, 12)), (10, (8, 8, 8)), (7, (6,) * 4), (1, (1,) * 24)]
)
def test_pieces_are_of_like_size_in_order_and_weigh_their_samples(most, sizes):
    built = CASES[0].build()
    found = cut(built.model, built.loss, built.batch, most)
    assert found.sizes == sizes
    assert found.shares == pytest.approx([n / 24 for n in sizes])
    assert torch.equal(torch.cat([x for x, _ in found.chunks]), built.batch[0])


def test_a_mean_over_tokens_weighs_its_tokens():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(11, 6), nn.Linear(6, 11)).double()
    tokens, labels = torch.randint(11, (8, 5)), torch.randint(11, (8, 5))
    for row in range(8):
        labels[row, 1 + row // 2 :] = -100

    def loss(z, targets):
        return nn.functional.cross_entropy(z.flatten(0, 1), targets.flatten())

    found = cut(model, loss, (tokens, labels), 4)
    counted = (labels != -100).view(2, -1).sum(1).double()
    assert found.shares == pytest.approx((counted / counted.sum()).tolist())


def _normalised():
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)).double().train()


def _dropping():
    return nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5), nn.Linear(5, 3)).double().train()


@pytest.mark.parametrize(
    ("make", "mode", "loss"),
    [
        (_normalised, "train", nn.functional.cross_entropy),
        (_dropping, "train", nn.functional.cross_entropy),
        (_normalised, "eval", nn.CrossEntropyLoss(reduction="sum")),
        (_normalised, "eval", lambda z, y: torch.cdist(z, z).mean()),
    ],
    ids=["batchnorm in train mode", "dropout in train mode", "a sum", "pairs of samples"],
)
def test_what_would_be_another_loss_is_not_cut(make, mode, loss):
    with pytest.raises(Missing, match="cut into micro-batches it is another loss: BatchNorm or dropout in train mode"):
        cut(make(), loss, CASES[0].build().batch, 12, mode)


def test_outputs_of_zero_do_not_hide_that_terms_weigh_differently():
    model = nn.Linear(6, 3).double()
    nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
    x, y = CASES[0].build().batch
    y = y.clone()
    y[2:12] = -100  # all losses are ln 3: weights by samples give the same loss, and another gradient
    assert cut(model, nn.CrossEntropyLoss(), (x, y), 12).shares == pytest.approx([2 / 14, 12 / 14])
