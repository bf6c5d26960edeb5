"""Trainings of models that are more than layers in a row."""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from trainings.base import (
    BATCH,
    NUM_CLASSES,
    NUM_INPUTS,
    NUM_SAMPLES,
    AugmentedImages,
    conv_net,
    forever,
    kind,
    mlp,
    small,
)


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.first, self.rest, self.reentrant = nn.Linear(NUM_INPUTS, 3), mlp()[1:], reentrant

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.rest, self.first(x), use_reentrant=self.reentrant)


@kind
def checkpointed_segments(device):
    yield (t := small(device, lambda: Checkpointed(False)))
    yield from forever(t)


@kind
def checkpointed_segments_reentrant(device):
    yield (t := small(device, lambda: Checkpointed(True)))
    yield from forever(t)


@kind
def transformer_with_clipping(device):
    class Transformer(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 4, 0.1, batch_first=True), 1)
            self.head = nn.Linear(4, NUM_CLASSES)

        def forward(self, x):
            return self.head(self.encoder(x.squeeze(1)).mean(1))

    def adamw(model):
        return torch.optim.AdamW(model.parameters(), 3e-3)

    yield (t := small(device, Transformer, adamw, data=DataLoader(AugmentedImages(), BATCH, shuffle=True)))
    while True:
        t.backward()
        nn.utils.clip_grad_norm_(t.model.parameters(), 0.5)
        t.optimizer.step()
        yield


@kind
def recurrent(device):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(4, 2, batch_first=True)
            self.head = nn.Linear(2, NUM_CLASSES)

        def forward(self, x):
            return self.head(self.lstm(x.squeeze(1))[0][:, -1])

    yield (t := small(device, Recurrent, data=DataLoader(AugmentedImages(), BATCH, shuffle=True)))
    yield from forever(t)


@kind
def tied_weights(device):
    class Language(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(5, 3)
            self.mix = nn.Linear(3, 3)
            self.decode = nn.Linear(3, 5, bias=False)
            self.decode.weight = self.embed.weight

        def forward(self, ids):
            return self.decode(torch.tanh(self.mix(self.embed(ids))))

    def loss(logits, ids):
        return F.cross_entropy(logits.flatten(0, 1), ids.flatten())

    ids = torch.randint(5, (NUM_SAMPLES, 4), generator=torch.Generator().manual_seed(3))
    texts = DataLoader(TensorDataset(ids, ids.roll(-1, 1)), BATCH, shuffle=True)
    yield (t := small(device, Language, data=texts, loss=loss))
    yield from forever(t)


@kind
def sparse_gradients(device):
    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(7, 3, sparse=True)

        def forward(self, ids):
            return self.embed(ids).mean(1)

    ids = torch.randint(7, (NUM_SAMPLES, 4), generator=torch.Generator().manual_seed(3))
    bags = DataLoader(TensorDataset(ids, torch.arange(NUM_SAMPLES) % NUM_CLASSES), BATCH)
    yield (t := small(device, Bag, lambda m: torch.optim.SparseAdam(m.parameters()), data=bags))
    t.is_genuine = lambda: t.model.embed.weight.grad.is_sparse
    yield from forever(t)


@kind
def weights_that_the_forward_pass_writes_to(device):
    class Bounded(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(7, 3, max_norm=1.0)

        def forward(self, ids):
            return self.embed(ids).mean(1)

    ids = torch.randint(7, (NUM_SAMPLES, 4), generator=torch.Generator().manual_seed(3))
    bags = DataLoader(TensorDataset(ids, torch.arange(NUM_SAMPLES) % NUM_CLASSES), BATCH)
    yield (t := small(device, Bounded, data=bags, may_warn="no second derivative in torch"))
    yield from forever(t)


@kind
def data_parallel(device):
    """On a CPU it calls the module as it is."""
    yield (t := small(device, lambda: nn.DataParallel(mlp())))
    yield from forever(t)


@kind
def buffers_that_are_not_saved(device):
    class Smoothed(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp()
            self.register_buffer("average", torch.zeros(NUM_CLASSES), persistent=False)
            self.register_buffer("cache", None, persistent=False)
            self.noise = torch.Generator().manual_seed(5)
            self.num_calls = 0

        def forward(self, x):
            out = self.net(x)
            if self.training:
                out = out + 0.01 * torch.randn(out.shape, generator=self.noise).to(out)
                self.num_calls += 1
                self.average.lerp_(out.detach().mean(0), 0.1)
                self.cache = out.detach()
            return out - self.average

    yield (t := small(device, Smoothed))
    t.beside |= {"noise": t.model.noise}
    for _ in forever(t):
        t.beside |= {"calls": t.model.num_calls, "cache": t.model.cache}
        yield


class LowRank(nn.Module):
    """A frozen linear layer and a trained difference of low rank, which evaluation merges into it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.a = nn.Parameter(0.1 * torch.randn(1, base.in_features))
        self.b = nn.Parameter(torch.zeros(base.out_features, 1))
        self.is_merged = False

    def train(self, mode: bool = True) -> LowRank:
        if mode == self.is_merged:
            with torch.no_grad():
                self.base.weight += (self.b @ self.a) * (-1 if self.is_merged else 1)
            self.is_merged = not mode
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        out = self.base(x)
        return out if self.is_merged else out + x @ self.a.T @ self.b.T


@kind
def low_rank_adapters(device):
    def adapted():
        net = mlp()
        net.requires_grad_(False)
        net[0], net[4] = LowRank(net[0]), LowRank(net[4])
        return net

    def adam(model):
        return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-2)

    yield (t := small(device, adapted, adam))
    for _ in forever(t):
        t.model.eval()
        with torch.no_grad():
            t.losses.append(F.cross_entropy(t.model(t.batch()[0]), t.batch()[1]).item())
        t.model.train()
        yield


@kind
def frozen_layer_that_keeps_its_gradient_and_thaws(device):
    yield (t := small(device))
    t.step()
    kept = t.model[0].weight.grad.clone()
    t.model[0].requires_grad_(False)
    yield
    t.optimizer.zero_grad = t.model[4].zero_grad  # the frozen layer's stays
    t.step()
    t.is_genuine = lambda: kept is not None
    yield
    t.model[0].requires_grad_(True)
    t.optimizer.add_param_group({"params": [extra := nn.Parameter(torch.ones(2, device=device))], "lr": 0.5})
    t.beside["extra"] = extra
    yield from forever(t)


@kind
def parametrized_weights(device):
    def net():
        return nn.Sequential(
            parametrizations.spectral_norm(nn.Linear(NUM_INPUTS, 3)), nn.Tanh(),
            parametrizations.weight_norm(nn.Linear(3, 3)), nn.Tanh(),
            parametrizations.orthogonal(nn.Linear(3, NUM_CLASSES)),
        )  # fmt: skip

    yield (t := small(device, net))
    yield from forever(t)


@kind
def weights_computed_by_hooks(device):
    def net():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            normed = torch.nn.utils.weight_norm(nn.Linear(3, NUM_CLASSES))
        return nn.Sequential(torch.nn.utils.spectral_norm(nn.Linear(NUM_INPUTS, 3)), nn.Tanh(), normed)

    yield (t := small(device, net, options={"mode": "train"}))
    yield from forever(t)


@kind
def probes_in_train_mode(device):
    yield (t := small(device, conv_net, data=DataLoader(AugmentedImages(), BATCH), options={"mode": "train"}))
    yield from forever(t)


@kind
def loss_with_parameters_and_state(device):
    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(NUM_CLASSES))
            self.norm = nn.BatchNorm1d(NUM_CLASSES)

        def forward(self, outputs, y):
            return F.cross_entropy(self.norm(outputs) * self.scale, y)

    loss = Centred().to(device)

    def of_both(model):
        return torch.optim.SGD([*model.parameters(), *loss.parameters()], 0.05)

    yield (t := small(device, optimizer=of_both, loss=loss, beside={"loss": loss}))
    yield from forever(t)
