"""The callback in real Trainers, on a tiny GPT-2 over made-up text."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

import trainvitals as tv
from trainvitals.integrations.huggingface import TrainVitalsCallback, model_loss

T = 12


def sentences(count, seed):
    """Return count sequences that go up by one or two at a time."""
    steps = torch.randint(1, 3, (count, T), generator=torch.Generator().manual_seed(seed))
    ids = steps.cumsum(1) % 23
    return [{"input_ids": row, "labels": row} for row in ids]


def train(folder, *callbacks, **options):
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(
        vocab_size=23, n_positions=T, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0))  # fmt: skip
    settings = TrainingArguments(
        output_dir=str(folder / "out"), max_steps=12, per_device_train_batch_size=8, logging_steps=4, report_to=[],
        save_strategy="no", disable_tqdm=True, use_cpu=True, learning_rate=1e-2, seed=0, **options,
    )  # fmt: skip
    trainer = Trainer(model, settings, train_dataset=sentences(64, 1), eval_dataset=sentences(16, 2),
                      callbacks=list(callbacks))  # fmt: skip
    trainer.train()
    return model


def test_a_trainer_leaves_a_run_with_probes_and_its_logs(tmp_path):
    train(tmp_path, TrainVitalsCallback(store=tmp_path, every=4, name="gpt2", heldout=_batch(sentences(16, 2))))
    with tv.open_run("gpt2", store=tmp_path) as run:
        assert run.status == "finished"
        assert run.last_step == 12
        assert run.series("loss.train")["step"].tolist() == [0, 4, 8, 12]
        assert len(run.series("loss.heldout")) == 4
        assert run.series("learning_rate")["step"].tolist()
        assert run.series("loss")["step"].tolist() == [4, 8, 12]
        losses = run.series("loss.train")["value"].tolist()
        assert losses[-1] < losses[0]
        assert run.events().query("kind == 'warning'").empty  # the Trainer logs a learning rate, and so do the probes


def _batch(rows):
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def test_training_is_bit_for_bit_what_it_is_without(tmp_path):
    alone = train(tmp_path)
    watched = train(tmp_path, TrainVitalsCallback(store=tmp_path, every=1, budget=None))
    for a, b in zip(watched.state_dict().values(), alone.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_accumulated_batches_are_one_step(tmp_path):
    train(tmp_path, TrainVitalsCallback(store=tmp_path, every=4, name="gpt2"), gradient_accumulation_steps=2)
    assert tv.open_run("gpt2", store=tmp_path).last_step == 12


def test_a_batch_without_labels_is_told_what_to_pass():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=23, n_positions=T, n_embd=16, n_layer=1, n_head=2))
    with pytest.raises(ValueError, match="put labels into the batches"):
        model_loss(model, {"input_ids": torch.zeros(2, T, dtype=torch.long)})
