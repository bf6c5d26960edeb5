"""Lightning: a callback that watches what a Trainer trains.

    trainer = Trainer(callbacks=[TrainVitalsCallback(loss=nn.functional.cross_entropy)])

Or without a change in the script: set the environment variable TRAINVITALS_LIGHTNING=1, and every Trainer of the
process has the callback, by Lightning's entry point `lightning.pytorch.callbacks_factory`.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

import trainvitals as tv
from trainvitals.integrations.probe_source import first_loader, probe_source

SWITCH = "TRAINVITALS_LIGHTNING"
_LOSS_NAMES = ("loss_fn", "criterion", "loss")  # attributes that modules keep their loss in


class TrainVitalsCallback(Callback):
    """Watch the module with the Trainer's first optimiser; the Trainer's logged metrics are recorded too.

    The module is called as `module(inputs)`. Under several processes the first one watches its own replica.

    Args:
        loss: loss(module(inputs), targets) → scalar mean; unless told, the module's attribute `loss_fn`, `criterion`
            or `loss`.
        forward: forward(module, batch) → (outputs, loss), in place of `loss`, for modules that are called otherwise.
        train: the train probe, as in `trainvitals.watch`; unless told, drawn from the train loader.
        heldout: the held-out probe; unless told, drawn from the first validation loader, if there is one.
        options: of `trainvitals.watch`: name, store, probes, every, budget…

    Raises:
        ValueError: at the start of training, for what `trainvitals.watch` refuses, or if no loss can be found.
    """

    def __init__(self, *, loss: Any = None, forward: Any = None, train: Any = None, heldout: Any = None,
                 **options: Any) -> None:  # fmt: skip
        self.run: tv.Watch | None = None
        self._given = {"loss": loss, "forward": forward, "train": train, "heldout": heldout}
        self._options = options
        self._logged_at = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to watch."""
        if not trainer.is_global_zero:
            return
        given = dict(self._given)
        if given["train"] is None:
            given["train"] = probe_source(first_loader(trainer.train_dataloader))
        if given["heldout"] is None and (loader := first_loader(trainer.val_dataloaders)) is not None:
            given["heldout"] = probe_source(loader)
        if given["loss"] is None and given["forward"] is None:
            given["loss"] = _loss_of(pl_module)
        # the other ranks have gone on: nothing may wait for them
        self.run = tv.watch(pl_module, trainer.optimizers[0], **given, **{"ranks": "this", **self._options})

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record what the module has logged since."""
        step, interval = trainer.global_step, trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        if self.run is not None and step != self._logged_at and step % interval == 0:
            self._logged_at = step
            self.run.log(**trainer.logged_metrics)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say that an epoch has ended."""
        if self.run is not None:
            self.run.epoch_end()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record what validation has logged."""
        if self.run is not None and not trainer.sanity_checking:
            self.run.log(**trainer.logged_metrics)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finish the run."""
        if self.run is not None:
            self.run.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Mark the run as crashed, or as stopped by Ctrl-C."""
        if self.run is not None:
            self.run.__exit__(type(exception), exception, exception.__traceback__)


def _loss_of(module: LightningModule) -> Any:
    found = next((getattr(module, name) for name in _LOSS_NAMES if callable(getattr(module, name, None))), None)
    if found is None:
        raise ValueError(
            f"expected loss= or forward=, got neither, and {type(module).__name__} keeps no loss in "
            f"{', '.join(_LOSS_NAMES)} in TrainVitalsCallback; pass loss=function(outputs, targets)"
        )
    return found


def callbacks_from_environment() -> list[Callback]:
    """Return the callback for every Trainer of this process if TRAINVITALS_LIGHTNING is 1, else nothing.

    The entry point `lightning.pytorch.callbacks_factory` calls it. Nobody has asked for this callback in the script,
    so what keeps it from watching is a warning.
    """
    return [_Unasked()] if os.environ.get(SWITCH) == "1" else []


class _Unasked(TrainVitalsCallback):
    """The callback that the environment asked for."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        others: list[Any] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        if any(isinstance(other, TrainVitalsCallback) and other is not self for other in others):
            return
        try:
            super().on_train_start(trainer, pl_module)
        except ValueError as error:
            warnings.warn(f"trainvitals: {SWITCH} is set, but this training is not watched: {error}", stacklevel=2)
