"""Accelerate: a tracker, so that `accelerator.log` writes into a watched run.

    run = tv.watch(model, optimizer, loss=..., train=...)
    accelerator = Accelerator(log_with=TrainVitalsTracker(run))
    accelerator.init_trackers("digits", config={"lr": 0.1})

What `accelerator.log` is given stands beside the probes' numbers, at the run's own step.
"""

from __future__ import annotations

from typing import Any

from accelerate.tracking import GeneralTracker, on_main_process

import trainvitals as tv


class TrainVitalsTracker(GeneralTracker):
    """Hand what `accelerator.log` is given to a watched run.

    Args:
        run: as `trainvitals.watch` returns it, for the model and the optimiser before `accelerator.prepare`.
    """

    name = "trainvitals"
    requires_logging_directory = False
    main_process_only = True

    def __init__(self, run: tv.Watch) -> None:
        super().__init__()
        self.run = run

    @property
    def tracker(self) -> tv.Watch:
        """The watched run."""
        return self.run

    @on_main_process
    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """Note the configuration in the run."""
        self.run.note(", ".join(f"{name}={value}" for name, value in values.items()))

    @on_main_process
    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        """Record numbers at the run's own step: it counts the optimiser's."""
        self.run.log(**{n: v for n, v in values.items() if not isinstance(v, (str, dict))})

    @on_main_process
    def finish(self) -> None:
        """Finish the run."""
        self.run.close()
