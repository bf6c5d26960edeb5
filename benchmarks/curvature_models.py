"""The models that curvature is compared on, trained for some steps, with their probe batches.

B samples of the batch, T tokens, P parameters.
"""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from sklearn import datasets
from torch import Tensor, nn

import trainvitals as tv
from trainvitals.schema import Reading

CONTEXT = 32  # T of the language model


@dataclass(frozen=True)
class Task:
    """A trained model in eval mode and its batch: `criterion(model(x), y)` is the mean loss."""

    name: str
    model: nn.Module
    x: Tensor
    y: Tensor
    subject: dict[str, Any]  # the same for TrainVitals: model, batch, and loss or forward

    @property
    def criterion(self) -> nn.Module:
        return nn.CrossEntropyLoss()

    @property
    def parameters(self) -> list[nn.Parameter]:
        return list(self.model.parameters())

    @property
    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters)

    @property
    def label(self) -> str:
        return f"{self.name}, P = {self.num_parameters:,}"

    def measure(self, metric: str, seed: int, **options: Any) -> Reading:
        """Return what `tv.measure` gives for one metric.

        Raises:
            RuntimeError: if the metric is missing.
        """
        reading = tv.measure(**self.subject, what={metric: options}, seed=seed)[metric]
        if reading.missing is not None:
            raise RuntimeError(f"{metric} is missing: {reading.missing}")
        return reading


class DigitTransformer(nn.Module):
    """Stock encoder layers over the eight rows of a digit, about a million parameters."""

    def __init__(self, width: int, num_layers: int) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.position = nn.Parameter(0.02 * torch.randn(8, width))
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 10) of images (B, 1, 8, 8)."""
        return self.head(self.encoder(self.embed(x[:, 0]) + self.position).mean(1))


class NextTokenLogits(nn.Module):
    """A Hugging Face language model as peers need it: one tensor in, one tensor out."""

    def __init__(self, language_model: nn.Module) -> None:
        super().__init__()
        self.language_model = language_model

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits (B · (T − 1), vocabulary) of tokens (B, T)."""
        return self.language_model(input_ids=ids).logits[:, :-1].flatten(0, 1)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))


def cnn(width: int = 16, hidden: int = 256) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * width, hidden), nn.ReLU(), nn.Linear(hidden, 10),
    )  # fmt: skip


def gpt2(vocabulary: int) -> nn.Module:
    """Return a small GPT-2 with random weights; nothing is downloaded."""
    transformers = _transformers()
    transformers.logging.set_verbosity_error()
    config = transformers.GPT2Config(
        vocab_size=vocabulary, n_positions=CONTEXT, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
    )  # fmt: skip
    return NextTokenLogits(transformers.GPT2LMHeadModel(config))


def _transformers() -> Any:
    """Import transformers where torchvision cannot be: one built for CUDA beside a torch that is not."""
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError):
        for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.modules["torchvision"] = None  # type: ignore[assignment]  # to its importers: not installed
    return importlib.import_module("transformers")


Batch = tuple[Tensor, Tensor]


@cache
def digits() -> Batch:
    """Return all 1,797 digits, (N, 1, 8, 8), and their labels."""
    found = datasets.load_digits()
    return torch.tensor(found.images / 16, dtype=torch.float32).unsqueeze(1), torch.tensor(found.target).long()


@cache
def text() -> tuple[Tensor, int]:
    """Return English text as character numbers, and how many characters there are: scikit-learn's descriptions."""
    loaders = (datasets.load_digits, datasets.load_iris, datasets.load_wine, datasets.load_breast_cancer)
    words = "\n".join(load().DESCR for load in loaders)
    letters = sorted(set(words))
    return torch.tensor([letters.index(c) for c in words]), len(letters)


def digit_batch(count: int, generator: torch.Generator | None = None) -> Batch:
    x, y = digits()
    chosen = torch.arange(count) if generator is None else torch.randint(len(x), (count,), generator=generator)
    return x[chosen], y[chosen]


def text_batch(count: int, generator: torch.Generator | None = None) -> Batch:
    characters, _ = text()
    last = len(characters) - CONTEXT
    even = torch.arange(count) * (last // count)
    starts = even if generator is None else torch.randint(last, (count,), generator=generator)
    ids = torch.stack([characters[s : s + CONTEXT] for s in starts])
    return ids, ids[:, 1:].flatten()


@dataclass(frozen=True)
class Recipe:
    """How a model is made and trained."""

    make: Callable[[], nn.Module]
    batch: Callable[..., Batch]
    num_samples: int  # in the probe batch
    num_steps: int  # of Adam, on random batches of 32
    is_language_model: bool = False


RECIPES = {
    "MLP": Recipe(mlp, digit_batch, 256, 200),
    "CNN": Recipe(cnn, digit_batch, 64, 100),
    "transformer": Recipe(lambda: DigitTransformer(128, 5), digit_batch, 16, 120),
    "GPT-2": Recipe(lambda: gpt2(text()[1]), text_batch, 16, 200, is_language_model=True),
}
QUICK_RECIPES = {
    "MLP": Recipe(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), digit_batch, 64, 30),
    "transformer": Recipe(lambda: DigitTransformer(8, 1), digit_batch, 16, 20),
}


def train(
    model: nn.Module,
    recipe: Recipe,
    num_steps: int,
    optimizer: torch.optim.Optimizer,
    after_step: Callable[[int], None] = lambda _: None,
) -> None:
    """Train on random batches of 32, the same on every call."""
    generator = torch.Generator().manual_seed(0)
    for step in range(1, num_steps + 1):
        x, y = recipe.batch(32, generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        after_step(step)
    optimizer.zero_grad(set_to_none=True)


def made(recipe: Recipe) -> nn.Module:
    """Return the untrained model, the same on every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return recipe.make()


@cache
def _trained(name: str, quick: bool) -> nn.Module:
    recipe = recipes(quick)[name]
    model = made(recipe)
    train(model, recipe, recipe.num_steps, torch.optim.Adam(model.parameters(), lr=2e-3))
    return model


def recipes(quick: bool) -> dict[str, Recipe]:
    return QUICK_RECIPES if quick else RECIPES


def task(name: str, dtype: torch.dtype = torch.float32, quick: bool = False) -> Task:
    """Return a trained model and its batch: the same weights in every dtype, for they are trained in float32."""
    return task_of(name, recipes(quick)[name], copy.deepcopy(_trained(name, quick)), dtype)


def task_of(name: str, recipe: Recipe, model: nn.Module, dtype: torch.dtype = torch.float32) -> Task:
    """Return a model as a task, with the recipe's probe batch."""
    model = model.to(dtype).eval()
    x, y = recipe.batch(recipe.num_samples)
    if recipe.is_language_model:
        subject = {"model": model.language_model, "batch": {"input_ids": x, "labels": x}, "forward": _forward}
    else:
        x = x.to(dtype)
        subject = {"model": model, "batch": (x, y), "loss": nn.functional.cross_entropy}
    return Task(name, model, x, y, subject)


def _forward(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Any, Tensor]:
    """Return the outputs and the loss on the next tokens: the model's own loss is in float32 whatever the weights."""
    outputs = model(input_ids=batch["input_ids"])
    logits, targets = outputs.logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten()
    return outputs, nn.functional.cross_entropy(logits, targets)
