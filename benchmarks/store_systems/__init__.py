"""The systems that are compared, one a file; each runs in a process of its own, with its own Python."""

from importlib import import_module
from types import ModuleType

OURS = "trainvitals_system"
SYSTEMS = {  # module: (name, is it run by --peers-python)
    OURS: ("TrainVitals", False),
    "tensorboard_system": ("TensorBoard", False),
    "trackio_system": ("trackio", True),
    "mlflow_system": ("MLflow (SQLite)", True),
    "wandb_system": ("W&B (offline)", True),
}
NUM_SCALARS = 10
NAMES = [f"scalar_{i}" for i in range(NUM_SCALARS)]


def load(module: str) -> ModuleType:
    """Return the module of a system; it has `VERSION` and a class `System`.

    Raises:
        ImportError: if the system is not installed in this Python.
    """
    return import_module(f"store_systems.{module}")
