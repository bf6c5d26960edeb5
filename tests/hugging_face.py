"""Tiny Hugging Face models with random weights, made offline, called through `forward=` with dict batches.

Legend: N samples, T tokens, C classes.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from without_torchvision import found_elsewhere, imported

N, T, C, VOCABULARY = 8, 6, 3, 13
_SIZES = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}

transformers = imported("transformers")
with mock.patch.object(importlib.util, "find_spec", found_elsewhere):  # models are looked up on first use
    BertForSequenceClassification = transformers.BertForSequenceClassification
    GPT2LMHeadModel = transformers.GPT2LMHeadModel
    LlamaForCausalLM = transformers.LlamaForCausalLM
    ViTForImageClassification = transformers.ViTForImageClassification


def bert(**options: Any) -> Any:
    return BertForSequenceClassification(transformers.BertConfig(
        **_SIZES, vocab_size=VOCABULARY, max_position_embeddings=T, num_labels=C, **options))  # fmt: skip


def gpt2(**options: Any) -> Any:
    return GPT2LMHeadModel(transformers.GPT2Config(
        n_embd=8, n_layer=1, n_head=2, n_positions=T, vocab_size=VOCABULARY, bos_token_id=1, eos_token_id=2, **options
    ))  # fmt: skip


def llama(**options: Any) -> Any:
    return LlamaForCausalLM(transformers.LlamaConfig(
        **_SIZES, num_key_value_heads=1, max_position_embeddings=T, vocab_size=VOCABULARY, attention_dropout=0.1,
        **options))  # fmt: skip


def vit(**options: Any) -> Any:
    return ViTForImageClassification(transformers.ViTConfig(
        **_SIZES, image_size=6, patch_size=3, num_channels=1, num_labels=C, hidden_dropout_prob=0.1,
        **options))  # fmt: skip


def call(model: Any, batch: dict[str, Tensor]) -> tuple[Any, Tensor]:
    """As the library's own Trainer does: the model computes its loss from the labels."""
    out = model(**batch)
    return out.logits, out.loss


LENGTHS = torch.tensor([6, 2, 3, 6, 5, 4, 2, 6])


def sentences(generator: torch.Generator) -> dict[str, Tensor]:
    ids = torch.randint(3, VOCABULARY, (N, T), generator=generator)
    mask = (torch.arange(T) < LENGTHS[:, None]).long()
    return {"input_ids": ids * mask, "attention_mask": mask, "labels": torch.arange(N) % C}


def texts(generator: torch.Generator) -> dict[str, Tensor]:
    batch = sentences(generator)
    return batch | {"labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)}


def pictures(generator: torch.Generator) -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(N, 1, 6, 6, generator=generator), "labels": torch.arange(N) % C}


@dataclass(frozen=True)
class Pretrained:
    """A model of the library. No weights are fetched: they are drawn."""

    name: str
    make: Callable[..., Any]
    make_batch: Callable[[torch.Generator], dict[str, Tensor]]
    attention: str = "sdpa"

    def model(self, dtype: torch.dtype = torch.float64, **options: Any) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            model = self.make(attn_implementation=self.attention, **options).to(dtype).eval()
            with torch.no_grad():
                for p in model.parameters():
                    p += 0.2 * torch.randn(p.shape, dtype=torch.float64).to(dtype)
        return model

    def batch(self, dtype: torch.dtype = torch.float64, seed: int = 4) -> dict[str, Tensor]:
        drawn = self.make_batch(torch.Generator().manual_seed(seed))
        return {name: t.to(dtype) if t.is_floating_point() else t for name, t in drawn.items()}

    def split(self, **options: Any) -> list[dict[str, Tensor]]:
        """The batch in three uneven ones."""
        whole = self.batch(**options)
        return [{name: t[a:b] for name, t in whole.items()} for a, b in ((0, 3), (3, 4), (4, N))]


PRETRAINED = [
    Pretrained(f"{make.__name__} {attention}", make, make_batch, attention)
    for make, make_batch in ((bert, sentences), (gpt2, texts), (llama, texts), (vit, pictures))
    for attention in ("eager", "sdpa")
]
