"""Hugging Face: the callback watches a tiny GPT-2 that a Trainer trains on text made here. Nothing is fetched.

`python examples/hugging_face_gpt2.py --store runs/`
"""

import argparse
import random
import tempfile

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from trainvitals.integrations.huggingface import TrainVitalsCallback

SUBJECTS, VERBS, OBJECTS = ("the cat", "a dog", "my aunt"), ("sees", "likes"), ("a tree", "the moon", "soup")
LENGTH = 24  # tokens of a sentence: one a character


def sentences(count: int, seed: int) -> list[dict[str, torch.Tensor]]:
    """Return sentences as token ids; each is its own label."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        text = f"{draw.choice(SUBJECTS)} {draw.choice(VERBS)} {draw.choice(OBJECTS)}."
        ids = torch.tensor([ord(letter) % 64 for letter in text.ljust(LENGTH)[:LENGTH]])
        rows.append({"input_ids": ids, "labels": ids})
    return rows


def main() -> None:
    """Train for a few dozen steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", default="runs/", help="folder for the run")
    store = parser.parse_args().store
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=LENGTH, n_embd=32, n_layer=2, n_head=2,
                                       bos_token_id=0, eos_token_id=0))  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder, max_steps=60, per_device_train_batch_size=16, learning_rate=3e-3, logging_steps=10,
            eval_strategy="steps", eval_steps=20, save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True,
        )  # fmt: skip
        held_out = sentences(64, 2)
        fixed = {name: torch.stack([row[name] for row in held_out]) for name in held_out[0]}
        watching = TrainVitalsCallback(store=store, name="gpt2-sentences", heldout=fixed, probe_samples=64, every=5)
        Trainer(model, settings, train_dataset=sentences(256, 1), eval_dataset=held_out,
                callbacks=[watching]).train()  # fmt: skip


if __name__ == "__main__":
    main()
