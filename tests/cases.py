"""The case list: small models on which the exact Hessian, gradients and features can be formed.

Every diagnostic is held against a dense float64 reference on each of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    """A model, its loss and its probe batches, made anew by `build` from a fixed seed."""

    name: str
    make_model: Callable[[], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    make_batches: Callable[[torch.Generator], list[tuple[Tensor, Tensor]]]
    is_classifier: bool = True

    def build(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> Built:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.make_model().to(dtype)
        generator = torch.Generator().manual_seed(seed + 1)
        return Built(model, self.loss, [_cast(b, dtype) for b in self.make_batches(generator)],
                     [_cast(b, dtype) for b in self.make_batches(generator)])  # fmt: skip


@dataclass
class Built:
    model: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    batches: list[tuple[Tensor, Tensor]]  # the train probe, as the user's loader gives it
    heldout_batches: list[tuple[Tensor, Tensor]]

    @property
    def batch(self) -> tuple[Tensor, Tensor]:
        """The train probe as one batch."""
        return torch.cat([x for x, _ in self.batches]), torch.cat([y for _, y in self.batches])

    @property
    def heldout(self) -> tuple[Tensor, Tensor]:
        return torch.cat([x for x, _ in self.heldout_batches]), torch.cat([y for _, y in self.heldout_batches])


def _cast(batch: tuple[Tensor, Tensor], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    x, y = (t.to(dtype) if t.is_floating_point() else t for t in batch)
    return x, y


class ConvNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 6, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = nn.functional.max_pool2d(x, 2)
        x = torch.relu(self.bn2(self.conv2(x)))
        return self.fc(x.mean((2, 3)))


class TransformerClassifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 8)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:  # (N, T, 4)
        return self.head(self.encoder(self.embed(x)).mean(1))


class TiedAutoencoder(nn.Module):
    """Encoder and decoder share one matrix, as two modules' parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(6, 6)
        self.decode = nn.Linear(6, 6)
        self.decode.weight = self.encode.weight
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.decode(torch.tanh(self.encode(x)))))


def _frozen_mlp() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3))
    for p in model[0].parameters():
        p.requires_grad_(False)
    return model


def _classes(*shape: int, num_classes: int, sizes: tuple[int, ...] = (24,)):
    def make(generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
        means = torch.randn(num_classes, *shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
        batches = []
        for size in sizes:
            y = torch.arange(size) % num_classes
            x = means[y] + 0.7 * torch.randn(size, *shape, generator=generator, dtype=torch.float64)
            batches.append((x, y))
        return batches

    return make


def _regression(generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    x = torch.randn(30, 5, generator=generator, dtype=torch.float64)
    return [(x, torch.stack([x[:, 0].sin(), x[:, 1] * x[:, 2]], 1))]


_cross_entropy = nn.functional.cross_entropy

CASES = [
    Case("mlp", lambda: nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)),
         _cross_entropy, _classes(6, num_classes=3)),
    Case("cnn_batchnorm", ConvNet, _cross_entropy, _classes(1, 6, 6, num_classes=4)),
    Case("layernorm",
         lambda: nn.Sequential(nn.Linear(6, 10), nn.LayerNorm(10), nn.GELU(), nn.Linear(10, 3)),
         _cross_entropy, _classes(6, num_classes=3)),
    Case("transformer", TransformerClassifier, _cross_entropy, _classes(5, 4, num_classes=3)),
    Case("tied", TiedAutoencoder, _cross_entropy, _classes(6, num_classes=3)),
    Case("frozen", _frozen_mlp, _cross_entropy, _classes(6, num_classes=3)),
    Case("mse", lambda: nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, 2)),
         nn.functional.mse_loss, _regression, is_classifier=False),
    Case("uneven", lambda: nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)),
         _cross_entropy, _classes(6, num_classes=3, sizes=(16, 16, 16, 16, 3))),
]  # fmt: skip


def dense_hessian(model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return the (P, P) Hessian of the mean loss in float64, eval mode, row by row: the slow, sure way.

    Rows follow `named_parameters()` of trainable parameters, tied ones once.
    """
    model = model.double().eval()
    x, y = (t.double() if t.is_floating_point() else t for t in batch)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        parameters = [p for p in model.parameters() if p.requires_grad]
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), torch.enable_grad():
            first = torch.autograd.grad(loss(model(x), y), parameters, create_graph=True, materialize_grads=True)
            flat = torch.cat([g.reshape(-1) for g in first])
            rows = []
            for entry in flat:
                row = torch.autograd.grad(entry, parameters, retain_graph=True, materialize_grads=True)
                rows.append(torch.cat([g.reshape(-1) for g in row]))
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    H = torch.stack(rows).detach()
    return (H + H.T) / 2
