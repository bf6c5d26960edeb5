"""A plausible run with every metric of the dashboard, recorded with the real writer.

`python tests/views/make_run.py FOLDER` records one and prints its id; `--live SECONDS` goes on writing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from trainvitals.schema import Chart, Description, Event, Question, Reading, Record, ReferenceLine, Scale, Status
from trainvitals.store.writer import RunWriter

LAYERS = ("conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight", "head.weight", "head.bias")
UNITS = ("conv1", "conv2", "fc1", "fc2")
META = {
    "model": {"class": "ConvNet", "num_parameters": 12_345, "num_trainable": 12_345},
    "optimizer": {"class": "SGD", "groups": [{"lr": 0.05, "momentum": 0.9}]},
    "probes": {"hessian.top": "every 50 steps", "oui": "every 10 steps", "nc": "every 20 steps"},
}
_QUESTIONS = {
    "hessian": Question.SHARPNESS, "stability": Question.SHARPNESS, "weights": Question.WEIGHTS,
    "update": Question.WEIGHTS, "grad": Question.GRADIENTS, "nc1": Question.REPRESENTATION,
    "samples": Question.SAMPLES, "spike": Question.STABILITY, "softmax_collapse": Question.STABILITY,
    "nc2": Question.REPRESENTATION, "nc3": Question.REPRESENTATION, "nc4": Question.REPRESENTATION,
}  # fmt: skip
BAND = ReferenceLine("published band 0.6–0.8", 0.6, "OUI, section 4", 0.8)


def readings(step: int, rng: np.random.Generator) -> dict[str, Reading]:
    """Return what the diagnostics of a classifier that overfits from step 200 on would say."""
    t = step / 100
    train, heldout = 2.3 * np.exp(-t / 1.2) + 0.02, 2.3 * np.exp(-t / 1.4) + 0.3 + 0.12 * max(t - 2, 0)
    top, noise = 8 * (1 + t) + rng.normal() * 0.3, lambda s: rng.normal() * s
    growth = np.array([1 + 0.02 * t, 1 + 0.03 * t, 1 + 0.025 * t, 1 + 0.04 * t, 1 + 0.9 * t, 1 + 0.03 * t])

    def exact(value: float | np.ndarray, keys: tuple[str, ...] = ()) -> Reading:
        return Reading(value=value, keys=keys, seconds=0.002, definition="v1")

    def estimate(value: float | np.ndarray, error: float | np.ndarray, keys: tuple[str, ...] = ()) -> Reading:
        return Reading(value=value, error=error, keys=keys, converged=step != 100, hvps=20, seconds=0.15)

    grid = np.linspace(-5, top * 1.1, 400)
    density = np.exp(-0.5 * (grid / 0.5) ** 2) + 1e-4 * np.exp(-0.5 * ((grid - top) / 0.3) ** 2)
    oui = np.clip(np.array([0.45, 0.55, 0.65, 0.7]) + 0.03 * t + rng.normal(size=4) * 0.01, 0, 1)
    found = {
        "loss.train": exact(train), "loss.heldout": exact(heldout), "gap.loss": exact(heldout - train),
        "accuracy.train": exact(min(1.0, 0.1 + 0.3 * t)), "accuracy.heldout": exact(min(0.88, 0.1 + 0.28 * t)),
        "gap.accuracy": exact(max(0.0, 0.02 * t)), "overtraining": exact(max(1.0, 1 + 0.2 * (t - 2))),
        "oui": exact(float(oui.mean())), "oui.layers": exact(oui, UNITS), "oui.v2": exact(oui * 0.7, UNITS),
        "weights.norm.value": exact(5 * growth, LAYERS), "weights.norm.growth": exact(growth, LAYERS),
        "weights.norm.distance": exact(growth - 1, LAYERS), "update.ratio": exact(1e-3 / growth, LAYERS),
        "grad.norm": exact(np.exp(-t) / growth, LAYERS), "grad.cosine": exact(0.5 * np.exp(-t) + 0.01),
        "grad.coherence": exact(60 * np.exp(-t) + 1), "grad.successive.gradient": exact(0.9 - 0.3 * t),
        "grad.successive.update": exact(0.95 - 0.1 * t),
        "grad.noise_scale": Reading.absent("|G|² ≤ 0 at this step") if step % 70 == 0 else exact(10 * np.exp(t)),
        "stability.threshold": exact(76.0), "stability.sharpness": estimate(top, 0.02),
        "stability.ratio": estimate(top / 76.0, 0.001), "hessian.trace": estimate(20 * top, 0.5 * top),
        "spike": exact(9.0 if step == 150 else noise(1.0)), "softmax_collapse": exact(min(1.0, 0.05 * t)),
        "nc1": exact(10 * np.exp(-1.3 * t)), "nc3": exact(1.5 * np.exp(-0.6 * t)),
        "nc4": exact(max(0.0, 0.4 - 0.2 * t)),
        **{f"nc2.{part}": exact(0.8 * np.exp(-0.5 * t) + 0.05 + abs(noise(0.005)))
           for part in ("norms_means", "norms_weights", "angles_means", "angles_weights")},
    }  # fmt: skip
    samples, clean = tuple(map(str, range(24))), np.arange(24) % 6 > 0
    margin = np.where(clean, 1 + t, -1 - 0.2 * t) + 0.01 * np.arange(24)
    found |= {"samples.loss": exact(np.log1p(np.exp(-margin)), samples), "samples.aum": exact(margin, samples),
              "samples.predicted": exact(np.where(clean, np.arange(24) % 10, 3.0), samples)}  # fmt: skip
    if step == 0:
        found["samples.inputs"] = Reading(
            value=rng.integers(0, 256, (24, 64), np.uint8), keys=samples,
            details={"kind": "image", "height": 8, "width": 8, "channels": 1, "labels": np.arange(24) % 10},
        )  # fmt: skip
    if step % 20 == 0:
        ranks = tuple(str(i + 1) for i in range(5))
        found["hessian.top"] = estimate(top * 0.8 ** np.arange(5), np.full(5, 0.05), ranks)
        found["hessian.bottom"] = estimate(-2 * 0.8 ** np.arange(3), np.full(3, 0.05), ranks[:3])
        a = np.linspace(-1, 1, 11)
        plane = train + top * (0.1 * a[:, None] ** 2 + 0.02 * (a[None] - 0.3 * a[:, None]) ** 2)
        found |= {"overlap.gradient": estimate(0.2 + 0.15 * t, 0.01), "overlap.weights": estimate(0.004, 0.002),
                  "overlap.chance": exact(0.001), "batch_sharpness": estimate(0.8 * top, 0.1 * top)}  # fmt: skip
        found["landscape"] = Reading(value=plane, keys=tuple(f"{x:g}" for x in a), seconds=1.2,
                                     details={"coordinates": a, "directions": "random"})  # fmt: skip
        found |= _classes(t, rng)
        found["hessian.density"] = Reading(value=density, error=0.1 * density, details={"grid": grid}, hvps=120,
                                           seconds=0.8)  # fmt: skip
    return found


def _classes(t: float, rng: np.random.Generator) -> dict[str, Reading]:
    """Return how five classes lie: their means on a plane with samples around them, and their gradients' cosines."""
    names, turns = tuple(map(str, range(5))), 2 * np.pi * np.arange(5) / 5
    means = (1 + t) * np.stack([np.cos(turns), np.sin(turns)], 1)
    labels = np.arange(60) % 5
    x, y = (means[labels] + np.exp(-t) * rng.normal(size=(60, 2))).T
    details = {"x": x, "y": y, "labels": labels, "shares": np.array([0.6, 0.4]), "rows_x": means[:, 0],
               "rows_y": means[:, 1]}  # fmt: skip
    return {"nc.plane": Reading(value=means, keys=names, seconds=0.002, details=details),
            "grad.per_class.cosine": Reading(value=np.full(5, -0.1), keys=names, seconds=0.1,
                                             details={"pairs": np.linspace(-0.9, 0.5, 10)})}  # fmt: skip


def descriptions() -> dict[str, Description]:
    """Return the diagnostics' own descriptions; a plain one for a name that none of them gives."""
    known = _registered()
    found = readings(20, _rng()) | readings(0, _rng())
    return {name: known.get(name) or _described(name, reading) for name, reading in found.items()}


def _registered() -> dict[str, Description]:
    from trainvitals.diagnostics.registry import described

    return described()


def _described(name: str, reading: Reading) -> Description:
    is_vector = np.ndim(reading.value) == 1
    chart = Chart.WATERFALL if "grid" in reading.details else Chart.HEATMAP if is_vector else Chart.LINE
    if name in {"hessian.top", "hessian.bottom"}:
        chart = Chart.LINES
    return Description(
        name, name.replace(".", " ").capitalize(), _QUESTIONS.get(name.split(".")[0], Question.OVERFITTING),
        f"What {name} shows.", formula=r"\lambda_1", source="a paper", chart=chart,
        scale=Scale.LOG if name.startswith("nc") or name.endswith("growth") else Scale.LINEAR,
        keys="layer" if is_vector else "", references=(BAND,) if name == "oui" else (),
    )  # fmt: skip


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def records(num_steps: int, start: float, every: int = 10) -> Iterator[Record]:
    """Yield the records of a run of that many steps."""
    rng = _rng()
    for step in range(0, num_steps + 1, every):
        yield Record(step, start + 0.02 * step, readings(step, rng),
                     {"train_loss": 2.3 * np.exp(-step / 120) + abs(rng.normal()) * 0.05, "lr": 0.05 * 0.999**step,
                      "probe.seconds": 0.05, "probe.share": 0.021})  # fmt: skip


def record_run(folder: str | Path, name: str = "digits-cnn", num_steps: int = 400,
               status: Status | None = Status.FINISHED) -> str:  # fmt: skip
    """Record a run and return its id. Without a status the writer stays open: the run is live."""
    writer = RunWriter.create(folder, name, META, descriptions())
    for record in records(num_steps, time.time() - 0.02 * num_steps):
        writer.append(record)
    writer.event(Event(120, time.time(), "warning", "grad.noise_scale is undefined here: |G|² ≤ 0"))
    assert writer.flush(30)
    if status is not None:
        writer.close(status, "it ended on an error" if status == Status.CRASHED else "")
    return writer.id


def record_live(folder: str | Path, seconds: float, step_seconds: float = 0.5) -> None:
    """Go on writing a point each `step_seconds`; print the id first, then each step as it is appended."""
    writer, rng = RunWriter.create(folder, "live-run", META, descriptions()), _rng()
    print(writer.id, flush=True)
    start = time.time()
    for step in range(10**9):
        if time.time() - start > seconds:
            break
        writer.append(Record(10 * step, time.time(), readings(10 * step, rng), {"train_loss": 1 / (1 + step)}))
        print(10 * step, flush=True)
        time.sleep(step_seconds)
    writer.close(Status.FINISHED)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--live", type=float, default=0.0)
    arguments = parser.parse_args()
    if arguments.live:
        record_live(arguments.folder, arguments.live)
    else:
        print(record_run(arguments.folder))
