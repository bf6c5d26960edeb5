"""What is wrong with a checkpoint, in one sentence that says what to try."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or does not belong to the model. The others go on."""
