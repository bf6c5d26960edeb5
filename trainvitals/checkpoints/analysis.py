"""After the run: the diagnostics of a live run, measured at every checkpoint of a run that is over."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainvitals.checkpoints.bench import Bench
from trainvitals.checkpoints.errors import CheckpointError
from trainvitals.checkpoints.executor import Dispatcher, ThisProcess, dask_executor, local_pool, num_workers_for
from trainvitals.checkpoints.finding import Checkpoint, Found, Problem, find
from trainvitals.checkpoints.jobs import Lane
from trainvitals.checkpoints.ledger import Ledger
from trainvitals.checkpoints.measuring import lanes_of_diagnostics
from trainvitals.checkpoints.optimizer_state import MakeOptimizer
from trainvitals.checkpoints.paths.base import PathMetric
from trainvitals.checkpoints.paths.registry import chosen, descriptions_of, is_of_paths, made
from trainvitals.checkpoints.paths.running import lanes_of_paths
from trainvitals.checkpoints.plan import Plan, built, kept, sealed
from trainvitals.checkpoints.weights_snapshot import served
from trainvitals.diagnostics.base import Diagnostic
from trainvitals.diagnostics.registry import select
from trainvitals.probes.heldout_sets import named_sets
from trainvitals.probes.probe_batch import probe_batch
from trainvitals.probes.provenance import run_meta
from trainvitals.probes.sample_inputs import DESCRIPTION, NAME, kept_inputs
from trainvitals.probes.subject import PROBE_SAMPLES, Forward
from trainvitals.run import Run
from trainvitals.schema import Description

Progress = Callable[[str, int, int], None]


def analyze(
    checkpoints: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    build: Callable[[], nn.Module] | None = None,
    batch: Any = None,
    loss: Callable[[Any, Any], Tensor] | None = None,
    forward: Forward | None = None,
    heldout: Any = None,
    optimizer: MakeOptimizer | None = None,
    what: str | Iterable[str] | Mapping[str, Mapping[str, Any]] = "default",
    against: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    store: str | os.PathLike[str] = "runs/",
    name: str = "checkpoints",
    resume: bool = True,
    executor: Executor | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    mode: str = "eval",
    seed: int = 0,
    probe_samples: int = PROBE_SAMPLES,
    products: str = "auto",
    max_memory_bytes: int | None = None,
    inputs: bool = True,
    progress: Progress | None = None,
) -> Run:
    """Measure diagnostics at every checkpoint, and write them as one ordinary run with the checkpoints' steps.

    The numbers are those of `trainvitals.watch` at the same steps on the same probes; what needs successive training
    steps is missing. The first checkpoint stands for the start of the run. Diagnostics that remember (the best loss
    so far, tracked eigenvectors) see the checkpoints in order; all others are measured side by side. A checkpoint
    that cannot be used is an event of kind "checkpoint" in the run, with the reason, and the others go on.

    An analysis that ended early goes on where it stopped when the same call is made again: the same name, store,
    probe, seed and first checkpoint. Later checkpoints and further metrics are added likewise, but for metrics of
    paths, which are of one set of checkpoints.

    Args:
        checkpoints: files, folders of them, or patterns: safetensors, torch (`weights_only=True`, no fallback),
            Lightning, Hugging Face, Accelerate, torch.distributed.checkpoint.
        build: makes the model, without arguments. Without it, only what weights alone tell is measured: norms,
            spectra, tails, distances, ranks.
        batch: the train probe, as `watch` takes it.
        loss: loss(model(inputs), targets) → scalar mean. Leave out if `forward` is given.
        forward: as in `watch`, for models that are not called as model(inputs).
        heldout: the held-out probe.
        optimizer: optimizer(model) → the optimiser as the training script made it; needed where checkpoints hold an
            optimiser's state and its class or its groups cannot be told from it.
        what: a preset, names and groups, or a mapping name → options. "path" stands for the metrics of the path
            through the checkpoints: `path.pca`, `path.distance`, `path.angle`, `path.barrier`, `path.soup`,
            `path.cka`, `path.landscape`.
        against: checkpoints of a second run of the same model: `path.against` compares the two at equal steps.
        options: options by metric name.
        store: the folder that holds runs.
        name: of the run.
        resume: whether to go on with an unfinished analysis; False begins anew.
        executor: any `concurrent.futures.Executor`. By default processes on this machine, by its cores and memory.
        scheduler: address of a Dask scheduler, "tcp://...", in place of `executor`.
        workers: how many jobs run at a time; 1 without an executor measures in this process.
        mode: "eval" or "train": BatchNorm and dropout.
        seed: of random vectors.
        probe_samples: samples drawn when a probe is a loader.
        products: how Hessian products are made, as in `measure`.
        max_memory_bytes: most that the graphs of Hessian products may hold, as in `measure`.
        inputs: whether to keep small pictures or tokens of the train probe in the run, as `watch` does.
        progress: called as progress("analyze", done, total) after each job.

    Returns:
        The run, readable while the analysis goes on too (`trainvitals.open_run`).

    Raises:
        ValueError: for unknown metrics or options, a batch that does not fit the model, a `build` that raises, and
            if no checkpoint can be used (`CheckpointError`).

    Example:
        >>> import tempfile, torch, trainvitals as tv
        >>> folder = tempfile.TemporaryDirectory()
        >>> def build():
        ...     return torch.nn.Linear(2, 1)
        >>> for step in (0, 10):
        ...     torch.save(build().state_dict(), f"{folder.name}/step_{step}.pt")
        >>> with tv.analyze(f"{folder.name}/*.pt", build=build, batch=(torch.eye(2), torch.zeros(2, 1)),
        ...                 loss=torch.nn.functional.mse_loss, what=["loss.train"], workers=1,
        ...                 store=folder.name) as run:
        ...     run.series("loss.train")["step"].tolist()
        [0, 10]
        >>> folder.cleanup()
    """
    others = None if against is None else find(against).checkpoints
    asked = _Asked.of(what, options, others, has_model=build is not None)
    found = find(checkpoints)
    if (build is None) != (batch is None):
        raise ValueError(
            f"expected build= and batch= together, or neither, got only {'batch' if build is None else 'build'}= in "
            "trainvitals.analyze; without both, weights alone are measured"
        )
    plan = Plan(
        tuple(asked.diagnostics), Checkpoint(Path(), 0, ""), build,
        _drawn(batch, "train", forward is not None, probe_samples),
        _drawn_sets(heldout, batch, forward is not None, probe_samples),
        loss, forward, optimizer, mode, seed, products, max_memory_bytes,
    )  # fmt: skip
    bench, found = _first_bench(plan, found)
    workers = _num_workers(workers, found, executor, scheduler)
    ledger = Ledger.open(
        found, _meta(bench, found, asked), asked.descriptions(), _identity(bench, found, asked), store, name,
        resume=resume,
    )
    with ledger:
        lanes = lanes_of_diagnostics(ledger, found, asked.diagnostics, workers)
        lanes += lanes_of_paths(ledger, found, asked.paths, after=lanes)
        ledger.begin(sum(len(lane.jobs) for lane in lanes), progress)
        if inputs and not bench.plan.is_of_weights:
            ledger.keep(found.checkpoints[0].step, kept_inputs(bench.subject, asked.diagnostics), {NAME: DESCRIPTION})
        plan = bench.plan
        del bench  # workers have models of their own
        _dispatch(plan, lanes, executor, scheduler, workers)
    return Run(ledger.path)


@dataclass(frozen=True)
class _Asked:
    """What is to be measured: diagnostics at every checkpoint, and metrics of the path through them."""

    diagnostics: list[Diagnostic]
    paths: list[PathMetric]
    path_names: frozenset[str]
    path_options: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(
        cls, what: Any, options: Mapping[str, Mapping[str, Any]] | None, others: Sequence[Checkpoint] | None, *,
        has_model: bool,
    ) -> _Asked:  # fmt: skip
        """Return what names, groups and presets stand for; of weights alone, what they can serve."""
        given = {**(options or {}), **(what if isinstance(what, Mapping) else {})}
        of_paths = {name: values for name, values in given.items() if is_of_paths(name)}
        names = [what] if isinstance(what, str) else list(what)
        rest = [name for name in names if not is_of_paths(name)]
        plain = {name: values for name, values in given.items() if name not in of_paths}
        diagnostics = select(rest, plain) if rest else []
        if others is not None and not has_model:
            raise ValueError(
                "expected build= and batch= with against=, got weights alone in trainvitals.analyze; pass both"
            )
        wanted = chosen([name for name in names if is_of_paths(name)], has_model=has_model)
        paths = made(wanted, of_paths, others)
        return cls(diagnostics if has_model else served(diagnostics), paths, wanted, of_paths)

    def descriptions(self) -> dict[str, Description]:
        """Return the descriptions of all that will be recorded."""
        diagnostics = {name: words for d in self.diagnostics for name, words in d.descriptions().items()}
        return diagnostics | descriptions_of(self.paths, self.path_names)


def _first_bench(plan: Plan, found: Found) -> tuple[Bench, Found]:
    """Return a bench with the first checkpoint that can be used; those before it are left out.

    Raises:
        CheckpointError: if none can be used, with the reason of the first.
        ValueError: if the batch does not fit the model.
    """
    problems = list(found.problems)
    if plan.build is not None:
        built(plan)  # what is wrong with it is wrong for all
    for index, checkpoint in enumerate(found.checkpoints):
        bench = Bench(replace(plan, first=checkpoint))
        try:
            _ = bench.first_weights if plan.is_of_weights else bench.subject
        except CheckpointError as error:
            problems.append(Problem(checkpoint.label, str(error), checkpoint.step))
            continue
        return bench, Found(found.checkpoints[index:], found.unit, tuple(problems))
    raise CheckpointError(problems[0].reason + (f" ({len(problems)} checkpoints, none of use)" if problems[1:] else ""))


def _dispatch(
    plan: Plan, lanes: Sequence[Lane], executor: Executor | None, scheduler: str | None, workers: int
) -> None:
    """Run the lanes on what was asked for."""
    if scheduler is not None:
        cluster, leave = dask_executor(scheduler)
        try:
            Dispatcher(sealed(plan), lambda: cluster, workers, is_ours=False).run(lanes)
        finally:
            leave()
    elif executor is not None:
        Dispatcher(sealed(plan), lambda: executor, workers, is_ours=False).run(lanes)
    elif workers == 1:
        Dispatcher(kept(plan), ThisProcess, 1, is_ours=True).run(lanes)
    else:
        Dispatcher(sealed(plan), lambda: local_pool(workers), workers, is_ours=True).run(lanes)


def _num_workers(workers: int | None, found: Found, executor: Executor | None, scheduler: str | None) -> int:
    if workers is not None:
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
            raise ValueError(
                f"expected a whole number of at least 1, got workers={workers!r} in trainvitals.analyze; leave it out "
                "for one that fits this machine"
            )
        return workers
    if executor is not None or scheduler is not None:
        return int(getattr(executor, "_max_workers", 0) or os.cpu_count() or 1)
    largest = max(_num_bytes(checkpoint.path) for checkpoint in found.checkpoints)
    return num_workers_for(largest, len(found.checkpoints))


def _num_bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(f.stat().st_size for f in path.rglob("*") if f.is_file())


def _drawn(source: Any, argument: str, has_forward: bool, max_samples: int) -> Any:
    """Return the samples of a probe as batches that travel: of a loader those that a live run would draw."""
    if source is None:
        return None
    drawn = probe_batch(source, argument=argument, has_forward=has_forward, max_samples=max_samples)
    return list(drawn.on(torch.device("cpu")).chunks)


def _drawn_sets(heldout: Any, batch: Any, has_forward: bool, max_samples: int) -> Any:
    sets = named_sets(heldout, batch)
    return {name: _drawn(source, "heldout", has_forward, max_samples) for name, source in sets.items()} or None


def _meta(bench: Bench, found: Found, asked: _Asked) -> dict[str, Any]:
    """Return what is stored once: as a live run has it, where there is a model."""
    schedules: dict[str, Any] = {d.name: "at every checkpoint" for d in asked.diagnostics}
    told = {"checkpoints": {
        "num": len(found.checkpoints), "unit": found.unit, "first": found.checkpoints[0].label,
        "last": found.checkpoints[-1].label, "labels": {str(c.step): c.label for c in found.checkpoints},
    }}  # fmt: skip
    if bench.plan.is_of_weights:
        weights = bench.first_weights
        model = {"class": "weights without a model", "num_parameters": sum(t.numel() for t in weights.values())}
        return {**told, "model": model, "probes": schedules, "seed": bench.plan.seed}
    return {**run_meta(bench.subject, schedules, None), **told}


def _identity(bench: Bench, found: Found, asked: _Asked) -> dict[str, Any]:
    """Return what two analyses must share to be parts of one; a path is one of certain checkpoints."""
    first, plan = found.checkpoints[0], bench.plan
    subject = None if plan.is_of_weights else bench.subject
    return {
        "first": [str(first.path.resolve()), _num_bytes(first.path)], "unit": found.unit, "mode": plan.mode,
        "seed": plan.seed, "options": {d.name: repr(d) for d in plan.diagnostics if repr(d) != repr(type(d)())},
        "path": [[c.label, _num_bytes(c.path)] for c in found.checkpoints] if asked.paths else None,
        "path options": repr(sorted(asked.path_options.items())),
        "probe": subject.train.hash if subject else None,
        "heldout": {name: b.hash for name, b in subject.heldout_sets.items()} if subject else None,
        "model": [(n, tuple(p.shape), str(p.dtype)) for n, p in subject.model.named_parameters()] if subject else None,
    }  # fmt: skip
