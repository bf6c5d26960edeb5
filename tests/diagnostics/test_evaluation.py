"""Which output belongs to which target, of samples and of tokens, against loops over tokens."""

import math

import pytest
import torch
import torch.nn.functional as F
from hugging_face import PRETRAINED, call

import trainvitals as tv
from trainvitals.diagnostics import evaluation as module
from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.evaluation import Evaluation, clustered_error, cross_entropies
from trainvitals.diagnostics.generalization_gap import accuracy_and_error, share_error

N, T, V = 7, 5, 11


def tokens(seed=0, ignored=True):
    generator = torch.Generator().manual_seed(seed)
    z = 2 * torch.randn(N, T, V, generator=generator, dtype=torch.float64)
    y = torch.randint(V, (N, T), generator=generator)
    y = torch.where(torch.rand(N, T, generator=generator) < 0.5, z.argmax(-1), y)
    if ignored:
        y[0, 3:], y[1], y[4, 0] = -100, -100, -100
    return z, y


def pairs(z, y, shift):
    """(sample, token, outputs, label) of each token with a target, one at a time."""
    return [
        (i, t, z[i, t], int(y[i, t + shift]))
        for i in range(N)
        for t in range(T - shift)
        if int(y[i, t + shift]) != -100
    ]


def mean_loss(cases):
    return sum(float(z.logsumexp(0) - z[c]) for _, _, z, c in cases) / len(cases)


def per_sample_mean(cases):
    samples = sorted({i for i, *_ in cases})
    return sum(mean_loss([case for case in cases if case[0] == i]) for i in samples) / len(samples)


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("mean", [mean_loss, per_sample_mean])
def test_tokens_are_paired_as_the_loss_pairs_them(shift, mean):
    z, y = tokens()
    cases = pairs(z, y, shift)
    found = Evaluation(mean(cases), z, y, N)
    assert found.accuracy() == pytest.approx(sum(int(z.argmax()) == c for _, _, z, c in cases) / len(cases))
    labelled = found.labelled
    assert labelled.labels.tolist() == [c for *_, c in cases]
    assert labelled.samples.tolist() == [i for i, *_ in cases]
    assert labelled.places.tolist() == [i * T + t for i, t, *_ in cases]
    torch.testing.assert_close(labelled.outputs, torch.stack([z for _, _, z, _ in cases]))
    assert (labelled.grid, labelled.num_classes, labelled.is_per_token) == ((N, T), V, True)


@pytest.mark.parametrize("pretrained", PRETRAINED, ids=lambda p: p.name)
def test_accuracy_of_hugging_face_models_is_that_of_a_loop(pretrained):
    model, batch = pretrained.model(), pretrained.batch()
    z, y = model(**batch).logits, batch["labels"]
    if z.ndim == 2:
        expected = (z.argmax(1) == y).double().mean().item()
    else:  # causal language models: the library shifts inside
        kept = y[:, 1:] != -100
        expected = (z[:, :-1].argmax(-1) == y[:, 1:])[kept].double().mean().item()
    reading = tv.measure(model, forward=call, batch=batch, what=["accuracy.train", "nll", "loss.train"])
    assert reading["accuracy.train"].value == pytest.approx(expected)
    assert reading["nll.train"].value == pytest.approx(reading["loss.train"].value, rel=1e-6)


def test_pixels_with_classes_in_the_second_dimension_are_cases_whatever_the_loss():
    z, y = tokens(1)
    pixels = z.movedim(-1, 1)  # (N, V, T)
    found = Evaluation(123.0, pixels, y, N)
    cases = pairs(z, y, 0)
    assert found.accuracy() == pytest.approx(sum(int(z.argmax()) == c for _, _, z, c in cases) / len(cases))


def test_as_many_tokens_as_classes_are_told_apart_by_the_loss():
    z, y = tokens(2, ignored=False)
    square, y = z[..., :T], y.clamp(max=T - 1)
    for layout in (square, square.movedim(1, 2)):
        loss = F.cross_entropy(square.flatten(0, 1), y.flatten()).item()
        assert Evaluation(loss, layout, y, N).accuracy() == pytest.approx((square.argmax(-1) == y).double().mean())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda z, y: (3.21, z, y), "which output belongs to which target is not known"),
        (lambda z, y: (math.nan, z, y), "which output belongs to which target is not known"),
        (lambda z, y: (1.0, z, None), "no targets"),
        (lambda z, y: (1.0, z, y.double()), "not class labels"),
        (lambda z, y: (1.0, z, y[:, :2]), "not a classifier"),
        (lambda z, y: (1.0, z, torch.full_like(y, -100)), "no token of the probe batch has a target"),
        (lambda z, y: (1.0, z, y.clamp(min=0) + V), "outside 0..10"),
        (lambda z, y: (1.0, z[:, 0, 0], y[:, 0]), "not a classifier"),
    ],
)
def test_what_cannot_be_paired_says_why(change, reason):
    loss, z, y = change(*tokens())
    for number in (lambda found: found.labelled, lambda found: found.accuracy()):
        with pytest.raises(Missing, match=reason):
            number(Evaluation(loss, z, y, N))


@pytest.mark.parametrize(
    ("outputs", "targets", "reason"),
    [(torch.zeros(4, 3), None, "no targets that TrainVitals can find"),
     (torch.zeros(4, 3), torch.zeros(5, dtype=torch.long), "4 outputs for 5 targets"),
     (torch.zeros(4, 1), torch.zeros(4, dtype=torch.long), r"outputs have shape \(4, 1\)"),
     (torch.zeros(4, 3), torch.zeros(4), "targets are not class labels: torch.float32"),
     (torch.zeros(4, 3), torch.tensor([0, 1, 2, 3]), "targets lie outside 0..2")],
    ids=["none", "length", "outputs", "floats", "range"],
)  # fmt: skip
def test_what_has_no_class_labels_says_why(outputs, targets, reason):
    with pytest.raises(Missing, match=reason):
        Evaluation(0.0, outputs, targets, 4).labels()


def test_of_many_tokens_some_are_drawn_and_accuracy_is_of_all(monkeypatch):
    z, y = tokens()
    cases = pairs(z, y, 0)
    whole = Evaluation(mean_loss(cases), z, y, N)
    monkeypatch.setattr(module, "drawn", lambda places, most: places[::3])
    part = Evaluation(mean_loss(cases), z, y, N)
    assert part.labelled.labels.tolist() == [c for *_, c in cases][::3]
    assert part.accuracy() == whole.accuracy()


def test_drawing_is_repeatable_in_order_and_without_repeats():
    places = torch.arange(5000) * 2
    first, second = module.drawn(places, 100), module.drawn(places, 100)
    assert first.tolist() == second.tolist() == sorted(set(first.tolist()))
    assert len(first) == 100
    assert set(first.tolist()) <= set(places.tolist())


def test_cross_entropy_in_pieces_is_that_of_torch(monkeypatch):
    z, y = tokens(3)
    pairings = [y, module.shifted(y), torch.full_like(y, -100)]
    monkeypatch.setattr(module, "_CHUNK_ENTRIES", 2 * T * V)
    found = cross_entropies(z, pairings)
    for targets, (of_tokens, of_samples) in zip(pairings[:2], found, strict=False):
        assert of_tokens == pytest.approx(F.cross_entropy(z.flatten(0, 1), targets.flatten()).item(), rel=1e-12)
        each = [F.cross_entropy(z[i], targets[i]).item() for i in range(N) if (targets[i] != -100).any()]
        assert of_samples == pytest.approx(sum(each) / len(each), rel=1e-12)
    assert all(math.isnan(mean) for mean in found[2])


def test_one_value_a_sample_has_the_usual_standard_error():
    values = torch.randn(20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert clustered_error(values, torch.arange(20)) == pytest.approx(float(values.std()) / 20**0.5, rel=1e-12)
    assert clustered_error(values, torch.zeros(20).long()) is None


def test_copies_of_a_token_do_not_make_the_error_smaller():
    values = torch.randn(20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    once, samples = clustered_error(values, torch.arange(20)), torch.arange(20).repeat_interleave(9)
    assert clustered_error(values.repeat_interleave(9), samples) == pytest.approx(once, rel=1e-12)


def test_the_error_of_dependent_tokens_covers_the_truth():
    """Samples of 3 or 12 tokens, right with a probability of their own: 2 errors hold the truth in 95 % of draws."""
    generator = torch.Generator().manual_seed(0)
    num, covered, draws = 60, 0, 400
    for _ in range(draws):
        lengths = torch.where(torch.rand(num, generator=generator) < 0.5, 3, 12)
        samples = torch.arange(num).repeat_interleave(lengths)
        p = torch.rand(num, generator=generator)[samples]
        is_right = (torch.rand(len(samples), generator=generator) < p).double()
        error = clustered_error(is_right, samples)
        covered += abs(float(is_right.mean()) - 0.5) <= 2 * error
    assert 0.92 <= covered / draws <= 0.98  # 95 % and four standard errors of 400 draws, less the small-sample loss


def test_accuracy_of_samples_keeps_its_binomial_error_and_all_right_is_not_certain():
    z, y = torch.eye(3)[torch.arange(9) % 3], torch.arange(9) % 3
    assert accuracy_and_error(Evaluation(0.0, z, y, 9)) == (1.0, share_error(1.0, 9))
    tokens_, labels = z.view(3, 3, 3).repeat(1, 1, 1) * 50, y.view(3, 3)
    loss = F.cross_entropy(tokens_.flatten(0, 1), labels.flatten()).item()
    assert accuracy_and_error(Evaluation(loss, tokens_, labels, 3)) == (1.0, share_error(1.0, 3))
