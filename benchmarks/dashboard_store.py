"""Runs for `benchmarks/dashboard.py`: long ones with 200 layers, and a store of two thousand short ones.

Scalars are made by the writer's own chunking, without a trainer; arrays go through the writer.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from trainvitals.run import open_run
from trainvitals.schema import Reading, Record
from trainvitals.store.codec import Points
from trainvitals.store.compaction import add_points
from trainvitals.store.opening import editing
from trainvitals.store.schema_sql import Field
from trainvitals.store.source import open_file
from trainvitals.store.writer import RunWriter

__all__ = ["SCALARS", "VECTORS", "descriptions", "long_run", "scalars_at", "vectors_at"]

NUM_LAYERS = 200
SCALARS = (
    "loss.train", "loss.heldout", "gap.loss", "accuracy.train", "accuracy.heldout", "gap.accuracy", "oui",
    "grad.cosine", "grad.coherence", "grad.noise_scale", "grad.successive.gradient", "grad.successive.update",
    "stability.sharpness", "stability.threshold", "stability.ratio", "hessian.trace", "spike", "softmax_collapse",
    "nc1", "learning_rate",
)  # fmt: skip
VECTORS = ("weights.norm.value", "weights.norm.growth", "update.ratio", "grad.norm", "oui.layers")
POINTS_PER_VECTOR_STEP = len(VECTORS) * NUM_LAYERS
VECTOR_SHARE = 0.2  # of the points, the rest are numbers
LAYERS = tuple(f"encoder.layers.{i // 4}.{('attention.qkv', 'attention.out', 'mlp.up', 'mlp.down')[i % 4]}.weight"
               for i in range(NUM_LAYERS))  # fmt: skip


def descriptions() -> dict:
    """Return what the diagnostics themselves say of these metrics."""
    from trainvitals.diagnostics.registry import described

    known = described()
    return {name: known[name] for name in (*SCALARS, *VECTORS)}


def long_run(folder: Path, num_points: int, name: str = "long") -> str:
    """Record a finished run of about that many points and return its id."""
    num_vector_steps = max(2, int(num_points * VECTOR_SHARE / POINTS_PER_VECTOR_STEP))
    num_steps = int(num_points * (1 - VECTOR_SHARE) / len(SCALARS))
    rng = np.random.default_rng(len(name))
    start = time.time() - num_steps / 100
    with RunWriter.create(folder, name, {"model": {"class": "Encoder"}}, descriptions(), max_records=10**6) as writer:
        for step in np.linspace(0, num_steps - 1, num_vector_steps).astype(int).tolist():
            writer.append(Record(step, start + step / 100, vectors_at(step / num_steps, rng),
                                 dict.fromkeys(SCALARS, 1.0) if step == 0 else {}))  # fmt: skip
    with open_file(writer.path) as source:
        ids = {series_name: id for id, series_name, field in source.series() if field == Field.VALUE}
    steps = np.arange(1, num_steps)
    with editing(writer.path) as rows:
        for column, scalar in enumerate(SCALARS):
            values = scalars_at(steps / num_steps, rng)[column]
            add_points(rows, ids[scalar], Points(10 * num_vector_steps + steps, steps, start + steps / 100, values))
    with open_run(writer.path) as run:
        found = run.series("loss.train", max_points=100)
    if found["step"].iloc[-1] != num_steps - 1:
        raise RuntimeError(f"expected {num_steps} steps in the run, its last one is {found['step'].iloc[-1]}")
    return writer.id


def scalars_at(t: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return (S, T) plausible numbers of a run that overfits from its middle on, t in [0, 1]."""
    noise = rng.normal(size=(len(SCALARS), len(t)))
    train = 2.3 * np.exp(-6 * t) + 0.02
    heldout = 2.3 * np.exp(-5 * t) + 0.3 + 0.5 * np.maximum(t - 0.5, 0)
    accuracy, held = 1 - 0.9 * np.exp(-6 * t), 0.88 - 0.78 * np.exp(-5 * t)
    sharpness = 10 + 60 * t
    courses = (train, heldout, heldout - train, accuracy, held, accuracy - held, 0.5 + 0.1 * t, 0.4 * np.exp(-3 * t),
               30 * np.exp(-3 * t) + 1, 10 * np.exp(2 * t), 0.5 - 0.2 * t, 0.8 - 0.1 * t, sharpness,
               np.full_like(t, 76), sharpness / 76, 20 * sharpness, 0 * t, 0.05 * t, 5 * np.exp(-4 * t),
               np.full_like(t, 0.05))  # fmt: skip
    size = np.array([[0.02], [0.02], [0.02], [0.005], [0.005], [0.005], [0.01], [0.02], [0.5], [0.5], [0.02], [0.02],
                     [0.5], [0], [0.01], [20], [1], [0.001], [0.05], [0]])  # fmt: skip
    return np.stack(courses) + size * noise


def vectors_at(t: float, rng: np.random.Generator) -> dict[str, Reading]:
    """Return the arrays of one step, a number a layer."""
    growth = 1 + t * np.linspace(0.1, 2, NUM_LAYERS)
    of_layers = {
        "weights.norm.value": 5 * growth, "weights.norm.growth": growth, "update.ratio": 1e-3 / growth,
        "grad.norm": np.exp(-t) / growth, "oui.layers": np.clip(0.5 + 0.1 * t + 0 * growth, 0, 1),
    }  # fmt: skip
    return {name: Reading(value=value * (1 + 0.01 * rng.normal(size=NUM_LAYERS)), keys=LAYERS, seconds=0.01)
            for name, value in of_layers.items()}  # fmt: skip
