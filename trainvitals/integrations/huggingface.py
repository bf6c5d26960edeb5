"""Hugging Face: a callback that watches what a Trainer trains.

    trainer = Trainer(model, args, train_dataset=..., callbacks=[TrainVitalsCallback()])

The loss, the probes and the optimiser are the Trainer's own unless told.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

import trainvitals as tv
from trainvitals.integrations.probe_source import probe_source


class TrainVitalsCallback(TrainerCallback):
    """Watch the Trainer's model; what the Trainer logs is recorded too.

    The model computes its loss from the labels in the batch, as the Trainer asks it to. Under several processes the
    first one watches its own replica.

    Args:
        forward: forward(model, batch) → (outputs, loss), for a Trainer whose `compute_loss` is its own.
        train: the train probe, as in `trainvitals.watch`; unless told, drawn from the train loader.
        heldout: the held-out probe; unless told, drawn from the evaluation loader, once the Trainer has made one.
        options: of `trainvitals.watch`: name, store, probes, every, budget…

    Raises:
        ValueError: at the start of training, for what `trainvitals.watch` refuses.
    """

    def __init__(self, *, forward: Any = None, train: Any = None, heldout: Any = None, **options: Any) -> None:
        self.run: tv.Watch | None = None
        self._forward = forward or model_loss
        self._train, self._heldout = train, heldout
        self._options = options

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
                       **given: Any) -> None:  # fmt: skip
        """Begin to watch."""
        if not state.is_world_process_zero:
            return
        optimizer = given["optimizer"]
        optimizer = getattr(optimizer, "optimizer", optimizer)  # Accelerate wraps it; its steps are the inner one's
        train = probe_source(given["train_dataloader"]) if self._train is None else self._train
        heldout = self._heldout
        if heldout is None and given.get("eval_dataloader") is not None:
            heldout = probe_source(given["eval_dataloader"])
        self.run = tv.watch(given["model"], optimizer, forward=self._forward, train=train, heldout=heldout,
                            **{"ranks": "this", **self._options})  # fmt: skip  # the other ranks have gone on

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
               logs: dict[str, Any] | None = None, **_: Any) -> None:  # fmt: skip
        """Record what the Trainer logs: its running loss, learning rate, evaluations."""
        if self.run is not None and logs:
            numbers = {n: v for n, v in logs.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
            self.run.log(**{n: v for n, v in numbers.items() if not self.run.measures(n)})  # the learning rate

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Say that an epoch has ended."""
        if self.run is not None:
            self.run.epoch_end()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Finish the run. A training that raises never comes here: the run is marked when the process ends."""
        if self.run is not None:
            self.run.close()


def model_loss(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Any, Tensor]:
    """Return the outputs, and the loss that the model makes from the labels in the batch.

    Raises:
        ValueError: if it makes none.
    """
    outputs = model(**batch)
    loss = outputs.get("loss") if hasattr(outputs, "get") else None
    if loss is None:
        raise ValueError(
            f"expected a loss from the model, got none for a batch of {', '.join(batch)} in TrainVitalsCallback; "
            "put labels into the batches, or pass forward=function(model, batch) -> (outputs, loss)"
        )
    return outputs, loss
