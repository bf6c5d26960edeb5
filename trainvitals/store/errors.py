"""What the store raises: one class for users to catch, one for files of a newer version."""


class StoreError(ValueError):
    """A run file or folder cannot be used as asked; the message says what to try."""


class NewerSchemaError(StoreError):
    """The run file was written by a newer TrainVitals than the one that opens it."""
