"""Representation, memorisation and stability metrics on every kind of task: a number, or the reason in words."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trainvitals as tv

WHAT = ["rank", "features", "units", "cka", "cka.layers", "knn_purity", "probe", "id.local", "el2n", "grand", "ece",
        "brier", "nll", "margin", "mia_auc", "per_class", "logit", "forgetting", "memorised", "flipped_fit", "spike",
        "softmax_collapse", "adam", "first_bad",
        "heldout", "per_group", "grad.per_group", "adv", "mce", "temperature", "kl_drift", "margin.normalized",
        "mia.fpr", "grokking_delay", "loss.movers", "feature.response", "ntk", "jacobian.spectrum", "lipschitz",
        "weights.distribution", "weights.histogram", "weights.wasserstein", "weights.r99", "weights.steady",
        "weights.rms_inf", "grad.spike", "data.passes",
        "accuracy.train", "nc", "cone", "fisher_ratio", "neco", "attention", "signal", "residual"]  # fmt: skip
N = 24
GROUPS = [i % 2 for i in range(N)]
OPTIONS = {"per_group": {"groups": GROUPS, "heldout_groups": GROUPS}, "grad.per_group": {"groups": GROUPS},
           "adv": {"epsilon": 0.1, "num_steps": 2}, "feature.response": {"features": [0, 1]},
           "ntk": {"num_samples": 3}, "jacobian.spectrum": {"num_samples": 3},
           "lipschitz": {"num_samples": 3}}  # fmt: skip


class Tokens(nn.Module):
    """A language model on dict batches, as Hugging Face has them; padding is ignored by the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(7, 8), nn.Linear(8, 8), nn.Linear(8, 7)

    def forward(self, ids):
        return self.head(F.gelu(self.mix(self.embed(ids))))  # (N, T, 7)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


class NoLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)

    def forward(self, x):
        return torch.relu(self.conv(x)).mean((2, 3))


def mlp(width, outputs):
    return nn.Sequential(nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, outputs))


def token_loss(model, batch):
    logits = model(batch["input_ids"])
    return logits, F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())


def contrastive(model, batch):
    one, other = (F.normalize(model(x), dim=1) for x in batch)
    return one, F.cross_entropy(one @ other.T / 0.1, torch.arange(len(one)))


def tokens(seed):
    ids = torch.randint(7, (N, 5), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "labels": torch.where(ids == 0, -100, ids)}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


LABELS = torch.arange(N) % 3
TASKS = {  # name -> model, how it is called, a function of a seed that gives a batch
    "classification": (lambda: mlp(4, 3), {"loss": F.cross_entropy}, lambda s: (draw(N, 4, seed=s), LABELS)),
    "label smoothing": (lambda: mlp(4, 3), {"loss": nn.CrossEntropyLoss(label_smoothing=0.1)},
                        lambda s: (draw(N, 4, seed=s), LABELS)),
    "class weights": (lambda: mlp(4, 3), {"loss": nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 9.0]))},
                      lambda s: (draw(N, 4, seed=s), LABELS)),
    "one class": (lambda: mlp(4, 3), {"loss": F.cross_entropy}, lambda s: (draw(N, 4, seed=s), 0 * LABELS)),
    "probabilities": (lambda: nn.Sequential(mlp(4, 3), nn.Softmax(1)), {"loss": lambda p, y: F.nll_loss(p.log(), y)},
                      lambda s: (draw(N, 4, seed=s), LABELS)),
    "regression": (lambda: mlp(4, 2), {"loss": F.mse_loss}, lambda s: (draw(N, 4, seed=s), draw(N, 2, seed=s + 5))),
    "multi-label": (lambda: mlp(4, 3), {"loss": F.binary_cross_entropy_with_logits},
                    lambda s: (draw(N, 4, seed=s), (draw(N, 3, seed=s) > 0).float())),
    "one logit": (lambda: nn.Sequential(mlp(4, 1), nn.Flatten(0)), {"loss": F.binary_cross_entropy_with_logits},
                  lambda s: (draw(N, 4, seed=s), (draw(N, seed=s) > 0).float())),
    "autoencoder": (lambda: mlp(4, 4), {"loss": F.mse_loss}, lambda s: (draw(N, 4, seed=s),) * 2),
    "segmentation": (lambda: nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1)),
                     {"loss": F.cross_entropy},
                     lambda s: (draw(N, 1, 5, 5, seed=s), (draw(N, 5, 5, seed=s) > 0).long())),
    "no linear layer": (NoLinear, {"loss": F.cross_entropy}, lambda s: (draw(N, 1, 5, 5, seed=s), LABELS)),
    "recurrent": (Recurrent, {"loss": F.cross_entropy}, lambda s: (draw(N, 6, 4, seed=s), LABELS)),
    "tokens": (Tokens, {"forward": token_loss}, tokens),
    "contrastive": (lambda: mlp(4, 3), {"forward": contrastive},
                    lambda s: (draw(N, 4, seed=s), draw(N, 4, seed=s + 5))),
    "one sample": (lambda: mlp(4, 3), {"loss": F.cross_entropy}, lambda s: (draw(1, 4, seed=s), LABELS[:1])),
    "bf16": (lambda: mlp(4, 3).bfloat16(), {"loss": F.cross_entropy}, lambda s: (draw(N, 4, seed=s), LABELS)),
    "nan": (lambda: poisoned(mlp(4, 3)), {"loss": F.cross_entropy}, lambda s: (draw(N, 4, seed=s), LABELS)),
    "zero": (lambda: zeroed(mlp(4, 3)), {"loss": F.cross_entropy}, lambda s: (draw(N, 4, seed=s), LABELS)),
}  # fmt: skip


def poisoned(model):
    with torch.no_grad():
        model[0].weight[0, 0] = torch.nan
    return model


def zeroed(model):
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    return model


def measured(task):
    make, how, batch = TASKS[task]
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.AdamW(model.parameters())
    return tv.measure(model, batch=batch(0), heldout=batch(1), optimizer=optimizer, what=WHAT, options=OPTIONS, **how)


@pytest.mark.parametrize("task", TASKS)
def test_each_metric_is_a_finite_number_or_missing_with_a_reason(task):
    for name, reading in measured(task).items():
        if reading.missing is None:
            assert np.isfinite(np.asarray(reading.value)).all(), name
            assert reading.keys == () or len(reading.keys) == len(reading.value), name
            assert reading.error is None or np.isfinite(np.asarray(reading.error)).all(), name
        else:
            assert "the measurement failed" not in reading.missing, (name, reading.missing)
            assert len(reading.missing) > 10, name


@pytest.mark.parametrize("task", TASKS)
def test_the_same_weights_give_the_same_numbers(task):
    one, other = measured(task), measured(task)
    for name, reading in one.items():
        assert repr(reading.value) == repr(other[name].value), name


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("regression", ["rank.effective", "units.dead", "grand", "mia_auc", "id.local", "first_bad"]),
        ("multi-label", ["rank.effective", "units.dead", "grand", "mia_auc"]),
        ("autoencoder", ["rank.participation", "grand", "mia_auc"]),
        ("segmentation", ["logit.scale.mean", "logit.z.mean", "units.dead", "mia_auc", "accuracy.train", "nll.train"]),
        ("tokens", ["logit.scale.mean", "units.dead", "accuracy.train", "nll.train", "margin.lowest",
                    "ece.heldout", "softmax_collapse", "rank.effective", "knn_purity", "probe.knn", "cone"]),
        ("label smoothing", ["nll.train", "mia_auc", "per_class.loss_train", "probe.linear"]),
        ("probabilities", ["nll.train", "el2n", "softmax_collapse"]),
        ("recurrent", ["rank.effective", "mia_auc", "grand", "adv.gap", "lipschitz.largest"]),
        ("regression", ["adv.linearity", "grad.per_group.norm", "per_group.loss_train", "ntk.lambda_max", "mia.fpr"]),
        ("classification", ["adv.robust.gap", "feature.response.margin_alone", "margin.normalized.mean", "mce.train"]),
        ("segmentation", ["jacobian.spectrum.residual", "grad.per_group.conflicts", "adv.abnormal"]),
        ("tokens", ["heldout.loss", "grad.per_group.cosine", "weights.distribution.kurtosis"]),
    ],
)
def test_what_applies_has_a_value(task, names):
    readings = measured(task)
    for name in names:
        assert readings[name].missing is None, (name, readings[name].missing)


def test_probabilities_and_logits_of_one_network_say_the_same():
    torch.manual_seed(0)
    model = mlp(4, 3)
    batch = (draw(N, 4), LABELS)
    what = ["el2n", "ece", "brier", "nll", "memorised"]
    one = tv.measure(model, batch=batch, heldout=batch, loss=F.cross_entropy, what=what)
    both = nn.Sequential(model, nn.Softmax(1))
    other = tv.measure(both, batch=batch, heldout=batch, loss=lambda p, y: F.nll_loss(p.log(), y), what=what)
    for name, reading in one.items():
        if reading.missing is None:
            assert other[name].value == pytest.approx(reading.value, rel=1e-4), name
