"""Batches weigh what their mean loss is a mean over: a split probe is worth the whole one, or is refused."""

import functools
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trainvitals as tv
from trainvitals.probes.subject import make_subject

WHAT = ["loss.train", "gap.loss", "grad.norm", "hessian.top"]
CUTS = (0, 5, 9, 12)  # uneven, of 12 sequences
LENGTHS = [6, 2, 3, 6, 5, 1, 2, 4, 6, 6, 6, 5]  # tokens that count, of 6
VOCABULARY = 7


def tokens(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs and labels (12, 6), with −100 where a sequence has ended."""
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randint(0, VOCABULARY, (12, 6), generator=generator) for _ in range(2))
    return x, y.masked_fill(torch.arange(6) >= torch.tensor(LENGTHS)[:, None], -100)


def tagger() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Embedding(VOCABULARY, 3), nn.Tanh(), nn.Linear(3, VOCABULARY)).double()


def token_mean(z: Tensor, y: Tensor, **options) -> Tensor:
    return F.cross_entropy(z.flatten(0, 1), y.flatten(), **options)


def split(batch):
    """The batch in three, as a loader would give it."""
    cut = [slice(a, b) for a, b in pairwise(CUTS)]
    if isinstance(batch, dict):
        return [{k: v[s] for k, v in batch.items()} for s in cut]
    return [tuple(t[s] for t in batch) for s in cut]


def assert_split_is_whole(model, batch, heldout, **arguments):
    whole = tv.measure(model, batch=batch, heldout=heldout, what=WHAT, **arguments)
    parts = tv.measure(model, batch=split(batch), heldout=split(heldout), what=WHAT, **arguments)
    for name in WHAT:
        assert whole[name].missing is None, whole[name].missing
        torch.testing.assert_close(torch.tensor(parts[name].value), torch.tensor(whole[name].value))


def shares(model, batches, *, loss=None, forward=None):
    return make_subject(model, loss=loss, forward=forward, train=batches, call="test").train.shares


class Weighted(nn.Module):
    """A cross entropy over (N, T, C) with the options of nn.CrossEntropyLoss."""

    def __init__(self, **options) -> None:
        super().__init__()
        self.inner = nn.CrossEntropyLoss(**options)
        self.weight, self.ignore_index = self.inner.weight, self.inner.ignore_index

    def forward(self, z, y):
        return self.inner(z.flatten(0, 1), y.flatten())


WEIGHT = torch.linspace(0.1, 3, VOCABULARY).double()


@pytest.mark.parametrize(
    "loss",
    [
        token_mean,
        functools.partial(token_mean, weight=WEIGHT),
        functools.partial(token_mean, label_smoothing=0.1),
        functools.partial(token_mean, ignore_index=3),
        Weighted(weight=WEIGHT, label_smoothing=0.2),
        lambda z, y: token_mean(z, y, reduction="none").sum() / y.numel(),
        lambda z, y: token_mean(z, y, reduction="none").view(y.shape).mean(1).mean(),
    ],
    ids=["cross entropy", "class weights", "smoothing", "own ignore index", "module", "mean with zeros", "of means"],
)
def test_a_padded_token_loss_split_unevenly_equals_the_whole(loss):
    x, y = tokens()
    other = tokens(seed=9)
    if isinstance(loss, functools.partial) and "ignore_index" in loss.keywords:
        y, other = y.masked_fill(y == -100, 3), (other[0], other[1].masked_fill(other[1] == -100, 3))
    assert_split_is_whole(tagger(), (x, y), other, loss=loss)


def causal(model, batch):
    """As Hugging Face's causal models do it: the labels are shifted inside."""
    z = model(batch["input_ids"])
    return z, token_mean(z[:, :-1], batch["labels"][:, 1:])


def unshifted(model, batch):
    z = model(batch["input_ids"])
    return z, token_mean(z, batch["labels"])


def masked(model, batch):
    z = model(batch["input_ids"])
    each = F.cross_entropy(z[:, :-1].transpose(1, 2), batch["input_ids"][:, 1:], reduction="none")
    mask = batch["attention_mask"][:, 1:]
    return z, (each * mask).sum() / mask.sum()


@pytest.mark.parametrize("forward", [causal, unshifted, masked])
def test_dict_batches_are_weighted_by_what_the_loss_counts(forward):
    batches = []
    for seed in (0, 9):
        x, y = tokens(seed)
        batches.append({"input_ids": x, "labels": y, "attention_mask": (y != -100).long()})
    assert_split_is_whole(tagger(), *batches, forward=forward)


def test_the_shares_are_those_counted_by_hand():
    x, y = tokens()
    batches = split({"input_ids": x, "labels": y})
    per_batch = [sum(LENGTHS[a:b]) for a, b in pairwise(CUTS)]
    assert shares(tagger(), batches, forward=unshifted) == pytest.approx([n / sum(LENGTHS) for n in per_batch])
    predicted = [sum(n - 1 for n in LENGTHS[a:b]) for a, b in pairwise(CUTS)]
    assert shares(tagger(), batches, forward=causal) == pytest.approx([n / sum(predicted) for n in predicted])


def hidden_mask(model, batch):
    """Padding that no label and no mask of the batch shows."""
    x, y = batch
    z, keep = model(x), x > 2
    each = F.cross_entropy(z.transpose(1, 2), y.clamp(min=0), reduction="none")
    return z, (each * keep).sum() / keep.sum(), keep.sum()


def test_the_number_of_terms_that_forward_states_is_used():
    assert_split_is_whole(tagger(), tokens(), tokens(9), forward=hidden_mask)


def test_without_it_a_loss_that_no_count_explains_is_refused():
    with pytest.raises(ValueError, match=r"train= to weigh as many loss terms.*does the loss mask padding.*forward="):
        shares(tagger(), split(tokens()), forward=lambda m, b: hidden_mask(m, b)[:2])
    assert shares(tagger(), [tokens()], forward=lambda m, b: hidden_mask(m, b)[:2]) == (1.0,)  # one batch: no weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_token_that_is_masked_unseen_is_enough_to_refuse(dtype):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randint(0, VOCABULARY, (12, 60), generator=generator) for _ in range(2))
    hidden = torch.zeros(12, 60, dtype=torch.bool)
    hidden[3, 7] = True  # of 720

    def forward(model, batch):
        z = model(batch[0])
        each = F.cross_entropy(z.transpose(1, 2), batch[1], reduction="none")
        return z, each[~batch[2]].mean()

    batches = [(x[:6], y[:6], hidden[:6]), (x[6:], y[6:], hidden[6:])]
    with pytest.raises(ValueError, match="expected the batches of train= to weigh as many loss terms"):
        shares(tagger().to(dtype), batches, forward=forward)


@pytest.mark.parametrize(
    "loss",
    [
        functools.partial(token_mean, reduction="sum"),
        lambda z, y: (z.flatten(1).std(0) ** 2).sum(),
        lambda z, y: token_mean(z, y).exp(),
    ],
    ids=["sum", "between samples", "perplexity"],
)
def test_a_loss_that_is_no_mean_is_refused(loss):
    with pytest.raises(ValueError, match=r"expected a loss that is a mean over its terms.*; is it a sum"):
        shares(tagger(), split(tokens()), loss=loss)


def test_batches_of_other_lengths_are_told_by_their_own_halves():
    x, y = tokens()
    batches = [(x[:6, :6], y[:6, :6]), (x[6:, :5], y[6:, :5])]
    counts = [int((b != -100).sum()) for _, b in batches]
    assert shares(tagger(), batches, loss=token_mean) == pytest.approx([n / sum(counts) for n in counts])


def test_what_fits_by_two_counts_that_differ_is_refused():
    x = torch.randint(0, VOCABULARY, (6, 6), generator=torch.Generator().manual_seed(0))
    batches = [(x, x.flip(1)), (x[:, :3], x[:, :3].flip(1))]  # no padding: halves are even by samples and by tokens
    with pytest.raises(ValueError, match=r"samples and target elements.* explain alike"):
        shares(tagger(), batches, loss=token_mean)
    stated = shares(tagger(), batches, forward=lambda m, b: (m(b[0]), token_mean(m(b[0]), b[1]), b[1].numel()))
    assert stated == pytest.approx((2 / 3, 1 / 3))


def test_single_samples_that_cannot_be_joined_are_refused_without_a_count():
    batches = [{"x": torch.ones(1, n, dtype=torch.long)} for n in (2, 3)]
    with pytest.raises(ValueError, match="batches that cannot be joined or halved"):
        shares(tagger(), batches, forward=lambda m, b: (m(b["x"]), m(b["x"]).square().mean()))


@pytest.mark.parametrize("terms", [0, float("nan"), None])
def test_a_batch_without_terms_is_refused(terms):
    def forward(model, batch):
        z = model(batch[0])
        return z, token_mean(z, batch[1]), len(z) if len(z) == 5 else terms

    with pytest.raises(ValueError, match="expected a positive number of loss terms for every batch"):
        shares(tagger(), split(tokens()), forward=forward)


def test_losses_one_a_sample_are_weighted_by_samples():
    def forward(model, batch):
        z = model(batch[0])
        return z, F.cross_entropy(z.transpose(1, 2), batch[1], reduction="none").sum(1)

    assert shares(tagger(), split(tokens()), forward=forward) == pytest.approx([5 / 12, 4 / 12, 3 / 12])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(5))
def test_a_batch_norm_and_dropout_in_train_mode_are_no_reason_to_refuse(seed, dtype):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.3), nn.ReLU(), nn.Linear(6, 3)).to(dtype)
    x, y = torch.randn(12, 4, dtype=dtype), torch.arange(12) % 3
    subject = make_subject(
        model, loss=F.cross_entropy, forward=None, train=split((x, y)), mode="train", call="test"
    )  # fmt: skip
    assert subject.train.shares == pytest.approx([5 / 12, 4 / 12, 3 / 12])


def test_a_diverged_model_is_measured_all_the_same():
    model = tagger()
    with torch.no_grad():
        model[2].bias.fill_(float("nan"))
    found = tv.measure(model, batch=split(tokens()), loss=token_mean, what=["loss.train", "hessian.top"])
    assert found["loss.train"].value != found["loss.train"].value
    assert found["hessian.top"].missing


def test_weighing_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 3)).train()
    batches = split((torch.randn(12, 4), torch.arange(12) % 3))
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    shares(model, batches, loss=F.cross_entropy)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert model.training
    assert model[1].training
