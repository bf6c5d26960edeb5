"""Watch a run: hooks on the optimiser count its steps, and due diagnostics are measured between them."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from trainvitals.alerts.alert import Alert
from trainvitals.alerts.lookout import Lookout, lookout_on
from trainvitals.diagnostics.base import Diagnostic, Needs, Trajectory
from trainvitals.diagnostics.registry import select
from trainvitals.integrations.forwarder import Forwarder
from trainvitals.integrations.sink import Sink
from trainvitals.probes.agenda import Agenda
from trainvitals.probes.asking import asked_of
from trainvitals.probes.budget import Asked, Budget, parse_share
from trainvitals.probes.gradients import TrajectoryRecorder
from trainvitals.probes.ledger import Ledger
from trainvitals.probes.measure import metric_names, take_readings
from trainvitals.probes.meter import Meter
from trainvitals.probes.newness import Newness
from trainvitals.probes.notices import foreign_optimizer
from trainvitals.probes.on_epoch_end import OnEpochEnd
from trainvitals.probes.on_spike import OnSpike
from trainvitals.probes.optimizer_view import names_of_parameters
from trainvitals.probes.outside_graphs import outside_graphs
from trainvitals.probes.product_choice import products_of
from trainvitals.probes.provenance import COST_DESCRIPTIONS, run_meta
from trainvitals.probes.sample_inputs import DESCRIPTION, NAME, kept_inputs
from trainvitals.probes.schedule import Schedule, dear_of_presets, parts, schedules_for
from trainvitals.probes.second_watch import second_watch
from trainvitals.probes.side import INLINE, Side, side_of
from trainvitals.probes.side_measurements import DESCRIPTIONS as SIDE_DESCRIPTIONS
from trainvitals.probes.side_measurements import Sent, SideMeasurements
from trainvitals.probes.snapshot import TRAIN_PASS
from trainvitals.probes.subject import PROBE_SAMPLES, Forward, Subject, make_subject
from trainvitals.probes.team import Team, team_of
from trainvitals.schema import Event, Reading, Record, Status, Verdict
from trainvitals.store.resuming import Begun, begin
from trainvitals.store.tagging import add_note, add_tags

DEFAULT_BUDGET = "auto"
_DEFAULT_SHARE = 0.05  # of wall time: the price of a probe that one forgets about


def watch(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    train: Any,
    heldout: Any = None,
    loss: Callable[[Any, Any], Tensor] | None = None,
    forward: Forward | None = None,
    name: str | None = None,
    store: str | os.PathLike[str] = "runs/",
    probes: str | Iterable[str] | Mapping[str, Mapping[str, Any]] = "default",
    every: int | str | Schedule | Mapping[str, int | str | Schedule] | None = None,
    budget: str | float | None = DEFAULT_BUDGET,
    where: str | Side = INLINE,
    mode: str = "eval",
    seed: int = 0,
    probe_samples: int = PROBE_SAMPLES,
    products: str = "auto",
    inputs: bool = True,
    max_memory_bytes: int | None = None,
    config: Any = None,
    on_verdict: Callable[[Verdict], object] | None = None,
    alerts: Sequence[Alert] = (),
    sinks: Sequence[Sink] = (),
    resume: Any = None,
    resume_step: int | None = None,
    ranks: str = "auto",
) -> Watch:
    """Watch a training run. Nothing in the training loop changes, and nothing in the run does.

    Use it as a context manager around the loop, or call `close()` at the end. Step 0 is measured at once;
    after that the optimiser's own post-step hook counts.

    Args:
        model: the model in training; compiled and DataParallel models are looked through.
        optimizer: its `step()` counts the steps.
        train: the train probe, fixed for the run: (inputs, targets), a list of batches, or a loader to draw from.
        heldout: the held-out probe, likewise; or a mapping from names to such probes: the one named "heldout", else
            the first, is the gap's, and `heldout.loss`, `.accuracy` and `.confidence` have a row for each.
        loss: loss(model(inputs), targets) → scalar mean over the batch.
        forward: forward(model, batch) → (outputs, mean or per-sample loss), in place of `loss` for models
            that are not called as model(inputs). Several batches are averaged by samples, by labels that are not
            ignored (shifted or not), by attended tokens or by class weights, whichever agrees with the loss of two
            batches together. A third element, the number of terms that the loss of the batch is a mean over, states
            it instead; where nothing agrees it must be given.
        name: of the run; the model's class name if left out.
        store: the folder that holds runs, made if it is not there; or postgresql://user@host/database: the run is
            then written to a file in `runs/` (or in the folder that TRAINVITALS_SPOOL names) and shipped from there.
        probes: a preset ("light", "default", "full"), names and groups, or a mapping name → options. A preset holds
            its dear diagnostics (Hessian products, per-sample gradients, passes of their own) while a budget paces
            them; on a fixed schedule name them as well: `probes=["full", "hessian"]`, or `every={"hessian": 500}`.
        every: steps between measurements: one number for all, a schedule, "log", or a mapping from names
            and groups to these. None follows each diagnostic's own interval. Schedules are `trainvitals.every`,
            `log_spaced`, `at_steps`, `on_epoch_end` and `on_spike`; `|` joins them.
        budget: share of wall time that measuring may take, as "5%" or 0.05, over the run and over the last minute.
            It is spent by value for cost: intervals become longer until it suffices (see docs/cost.md). None follows
            the schedule exactly. By default 5 %; with a schedule of your own only
            for what is dear (Hessian products, per-sample gradients) and came with a preset: all else, and what
            you name in `probes` or `every`, follows the schedule exactly.
        where: "inline" measures between two steps of training. "side" copies model and optimiser to a second process
            that measures while training goes on: what needs a pass, Hessian products or a look at all weights; what
            reads training steps stays inline. What is due while it is busy is dropped and counted in `probe.dropped`.
            `trainvitals.Side(num_threads=2)` says how it runs. Model, loss and forward have to be picklable.
        mode: "eval" or "train": BatchNorm and dropout in probe passes.
        seed: of the probes' own random vectors; the run's random state is never touched.
        probe_samples: samples drawn when a probe is a loader.
        products: how Hessian products are made, as in `trainvitals.measure`.
        inputs: where single samples are measured, keep up to 512 of the train probe in the run, as pictures of at
            most 64×64 pixels or rows of at most 64 tokens, for the page *Which samples?*. They are training data:
            False keeps none.
        max_memory_bytes: most that the graphs of Hessian products may hold, as in `trainvitals.measure`.
        config: your settings, recorded with the run: a mapping, a dataclass or a namespace. Passwords and tokens in
            it are hidden, as in the command that is recorded too.
        on_verdict: called in your own thread, between two steps, with every verdict whose state has changed: to stop
            early, or to keep a checkpoint. What it raises comes out of `optimizer.step()`.
        alerts: from `trainvitals.alerts`; told of every alarm, once, in a thread of their own. With either of the two
            the verdicts are looked at every five seconds, or less often, so that it takes 2 % of a core at most.
        sinks: from `trainvitals.integrations`: TensorBoard, Weights & Biases, MLflow, trackio. They are handed all
            numbers, and yours, in a thread of their own, and closed at the end.
        resume: a run of the store that has ended or was killed, to go on with: its path, its id, the beginning of one,
            its name, or "latest". Steps are counted on from its last one and an event marks the seam; what is
            measured against the weights at the start is measured against those at the seam. `name` is not used.
        resume_step: the step at which it goes on, if training goes back to an earlier checkpoint.
        ranks: "auto" makes one run of all processes that train a model wrapped by DistributedDataParallel or
            `fully_shard`: every rank calls watch, gives its part of the probes (or the same), and shares the work;
            the first one writes. "all" does so without a wrapper, for copies that you keep alike; "this" watches in
            this process alone, as after `if rank == 0:`. See docs/distributed.md.

    Returns:
        The watch, with `.id`, `.path`, `.step`, `.log(...)`, `.tag(...)`, `.note(...)` and `.close()`.

    Raises:
        ValueError: before training starts, for a batch that does not fit the model, a loss that is not one
            number or not the same twice, batches whose weights in the mean loss cannot be told, a model with
            nothing to train, unknown metric names, or a folder that cannot be written; for a run to go on with
            that is not there, or that another process writes.

    Example:
        >>> import tempfile, torch, trainvitals as tv
        >>> model, x, y = torch.nn.Linear(2, 1), torch.randn(8, 2), torch.randn(8, 1)
        >>> optimizer, loss = torch.optim.SGD(model.parameters(), lr=0.1), torch.nn.functional.mse_loss
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with tv.watch(model, optimizer, loss=loss, train=(x, y), store=folder, every=10) as run:
        ...         for _ in range(20):
        ...             optimizer.zero_grad(); loss(model(x), y).backward(); optimizer.step()
        ...     tv.open_run(run.path).series("loss.train")["step"].tolist()
        [0, 10, 20]
    """
    if not isinstance(optimizer, Optimizer):
        raise ValueError(
            f"expected a torch.optim.Optimizer, got {type(optimizer).__name__} in trainvitals.watch; "
            "pass the optimiser whose step() updates the model"
        )
    foreign = foreign_optimizer(model, optimizer) if isinstance(model, nn.Module) else None
    side = side_of(where)
    diagnostics = select(probes)
    schedules = schedules_for(diagnostics, every)
    paced = _paced(diagnostics, probes, every, budget)
    share = _share(budget) if paced else None
    asked = asked_of(diagnostics, schedules, paced, is_free=every is None)
    team = team_of(model, ranks, mode)
    if team is not None:
        model, train, heldout = team.prepared(
            train, heldout, has_forward=forward is not None, max_samples=probe_samples, is_inline=side is None
        )
    subject = make_subject(
        model, loss=loss, forward=forward, train=train, heldout=heldout, optimizer=optimizer,
        mode=mode, seed=seed, probe_samples=probe_samples, call="trainvitals.watch",
    )  # fmt: skip
    subject.products = products_of(subject, products, max_memory_bytes, patience=0)  # a run goes on: it pays early
    if team is None or team.is_leader:
        subject.initial_parameters = subject.weights_at_start()
    run_name = str(name or type(subject.model).__name__)
    kept = kept_inputs(subject, diagnostics) if inputs else {}
    descriptions = {key: words for d in diagnostics for key, words in d.descriptions().items()} | COST_DESCRIPTIONS
    descriptions |= {NAME: DESCRIPTION} if kept else {}
    descriptions |= SIDE_DESCRIPTIONS if side is not None else {}
    meta = run_meta(subject, schedules, share, config) | {"where": "inline" if side is None else "side"}
    if team is not None:
        asked = team.payable(asked, diagnostics)
        team.engage(subject, diagnostics, schedules, is_paced=bool(paced))
        meta |= team.words()
        if not team.is_leader:
            on_verdict, alerts, sinks = None, (), ()
    begun = _begun(team, lambda: begin(store, run_name, meta, descriptions, resume=resume, step=resume_step))
    writer, run_name = begun.writer, begun.name
    if kept:
        writer.append(Record(begun.step, time.time(), kept))
    lookout = lookout_on(writer.path, run_name, alerts, keep=on_verdict is not None) if on_verdict or alerts else None
    run = Watch(subject, diagnostics, schedules, share, asked, begun, lookout, on_verdict, sinks, side, team)
    odd = [*subject.notices, foreign, second_watch(run, subject.model if team is None else team.trained, optimizer)]
    run.say([message for message in odd if message is not None])
    return run


def _begun(team: Team | None, begin: Callable[[], Begun]) -> Begun:
    return begin() if team is None else team.begun(begin)


def _paced(
    diagnostics: Iterable[Diagnostic], probes: Any, every: Any, budget: str | float | None
) -> frozenset[str]:
    """Return the names of what a budget paces; the rest follows its schedule exactly."""
    if budget is None:
        return frozenset()
    if budget == DEFAULT_BUDGET and every is not None:
        return dear_of_presets(diagnostics, probes, every)
    return frozenset(d.name for d in diagnostics)


def _share(budget: str | float | None) -> float:
    return _DEFAULT_SHARE if budget in (DEFAULT_BUDGET, None) else parse_share(budget)


class Watch:
    """A run being watched. Made by `trainvitals.watch`."""

    def __init__(
        self,
        subject: Subject,
        diagnostics: list[Diagnostic],
        schedules: Mapping[str, Schedule],
        share: float | None,
        asked: Mapping[str, Asked],
        begun: Begun,
        lookout: Lookout | None = None,
        on_verdict: Callable[[Verdict], object] | None = None,
        sinks: Sequence[Sink] = (),
        side: Side | None = None,
        team: Team | None = None,
    ) -> None:
        self.name = begun.name
        self.step = begun.step  # optimiser steps taken
        self._subject = subject
        self._diagnostics = {d.name: d for d in diagnostics}
        self._schedules = schedules
        ours = COST_DESCRIPTIONS | SIDE_DESCRIPTIONS
        self._metric_names = frozenset(ours).union(*(d.descriptions() for d in diagnostics))
        self._writer = begun.writer
        started = time.perf_counter()
        self._ledger = Ledger(1.0, started)  # of everything, paced or not
        self._seconds_aside = 0.0  # in hooks, beside what was measured, and not yet written down
        self._paced = frozenset(asked)
        self._families = {d.name: d.cost() for d in diagnostics}
        self._budget = None if share is None else Budget(share, asked, started)
        self._newness = Newness()
        self._told: dict[str, int] = {}  # intervals, as last recorded
        self._momentary = frozenset(d.name for d in diagnostics if d.needs & Needs.TRAJECTORY)
        self._team = team
        if team is not None and not team.is_leader:  # it takes orders, at whatever price
            self._budget, self._momentary = None, self._momentary if team.has_parts else frozenset()
        self._warned: set[str] = set()
        self._tags, self._note = list(begun.tags), begun.note
        subject.products.warn = lambda message: self._warn(message, message)
        self._lookout, self._on_verdict = lookout, on_verdict
        self._forwarder = Forwarder(sinks) if sinks else None
        self._handles: list[Any] = []
        self._is_open = True
        self._pid = os.getpid()
        self._listening = [part for one in {id(s): s for s in schedules.values()}.values() for part in parts(one)]
        self._agenda = Agenda(schedules, self._budget, self._paced, self._momentary, self.step)
        trained = subject.model if team is None else team.trained
        self._recorder = TrajectoryRecorder(lambda: names_of_parameters(trained), self._agenda.wants_trajectory)
        self._seconds_recording = 0.0  # since a trajectory was last measured
        self._keeping = threading.Lock()
        self._side = side and SideMeasurements(side, subject, self._diagnostics, self._keep, self._warn)
        self._attach()
        atexit.register(self._at_exit)
        try:
            self._guarded("probes", self._measure_due)
            if lookout is not None:
                lookout.start()
        except BaseException as error:  # Ctrl-C during the first measurement: no `with` block closes us yet
            self.__exit__(type(error), error, None)
            raise

    @property
    def id(self) -> str:
        """The run's id, as `trainvitals.open_run` takes it."""
        return self._writer.id

    @property
    def is_open(self) -> bool:
        """Whether it still measures."""
        return self._is_open

    @property
    def path(self) -> Path:
        """The run's file."""
        return Path(self._writer.path)

    @outside_graphs
    def log(self, **scalars: float | Tensor) -> None:
        """Record numbers of your own at the present step, such as `train_loss=loss.item()`.

        A value that is not a number, and a name that a diagnostic has, is one warning and is left out.
        """
        numbers: dict[str, float] = {}
        for name, value in scalars.items():
            if name in self._metric_names:
                self._warn(f"log:{name}", f"expected a name of your own, got the metric {name!r} in run.log; rename it")
                continue
            try:
                numbers[name] = float(value.detach() if isinstance(value, Tensor) else value)
            except Exception:  # too large an integer, a tensor without data, a class of the user's
                kind = type(value).__name__
                self._warn(f"log:{name}", f"expected one number for {name!r} in run.log, got {kind}; log a float")
        if numbers and self._is_open:
            self._append(Record(self.step, time.time(), scalars=numbers))
            self._hear(numbers)

    def epoch_end(self) -> None:
        """Say that an epoch has ended: what is to be measured `on_epoch_end()` is measured now.

        Where several ranks train, it is measured after the next step.
        """
        if not self._is_open:
            return
        for schedule in self._listening:
            if isinstance(schedule, OnEpochEnd):
                schedule.end(self.step + (self._team is not None))
        self._agenda.replanned()
        if self._team is None:
            self._guarded("probes", self._measure_due)

    def _hear(self, numbers: Mapping[str, float]) -> None:
        """Tell schedules that listen of numbers at this step."""
        for schedule in self._listening:
            if isinstance(schedule, OnSpike):
                for name, value in numbers.items():
                    if schedule.hear(self.step, name, value):
                        self._agenda.replanned()

    def measures(self, name: str) -> bool:
        """Tell whether a probe gives a metric of that name: `log` leaves such a number out."""
        return name in self._metric_names

    def tag(self, *tags: str) -> None:
        """Give the run tags, to find it by. A tag that is no short text is one warning and is left out."""
        self._annotated("tag", lambda: setattr(self, "_tags", add_tags(self._tags, tags)))
        if self._is_open:
            self._writer.header("tags", self._tags)

    def note(self, text: str) -> None:
        """Add a line to the note of the run, in which secrets are hidden."""
        self._annotated("note", lambda: setattr(self, "_note", add_note(self._note, text)))
        if self._is_open:
            self._writer.header("note", self._note)

    def say(self, messages: Iterable[str]) -> None:
        """Say something about the run, once: as a warning, and as an event of the run."""
        for message in messages:
            self._warn(message, message)

    def give_way(self, to: str) -> None:
        """Finish the run because another watch of the same model and optimiser has begun."""
        self._close(Status.FINISHED, "finished", f"run {to} watches this model from here on")

    def _annotated(self, what: str, change: Callable[[], None]) -> None:
        try:
            change()
        except ValueError as error:
            self._warn(what, str(error))

    def close(self) -> None:
        """Take every hook off, write what is left, and mark the run as finished. A second call does nothing."""
        self._close(Status.FINISHED, "finished", "")

    def _ipython_display_(self) -> None:
        """Show the run in a notebook, live as long as it is."""
        from trainvitals.notebook import show
        from trainvitals.run import open_run

        show(open_run(self.path))

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        elif isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
            self._close(Status.FINISHED, "interrupted", f"stopped by {type(error).__name__}")
        else:
            self._close(Status.CRASHED, "error", f"{type(error).__name__}: {error}")

    # Hooks --------------------------------------------------------------------------------------

    def _attach(self) -> None:
        optimizer = self._subject.optimizer
        assert optimizer is not None  # watch() requires it
        if self._momentary:
            self._handles.append(optimizer.register_step_pre_hook(self._before_step))
        self._handles.append(optimizer.register_step_post_hook(self._after_step))

    @outside_graphs
    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self._agenda.wants_trajectory(self.step + 1) or self._agenda.wants_trajectory(self.step + 2):
            self._guarded("recorder", lambda: self._record(self._recorder.before_step, optimizer, self.step + 1))

    @outside_graphs
    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if os.getpid() != self._pid:  # a forked child trains a copy of its own
            return
        started = time.perf_counter()
        self.step += 1
        self._writer.progress(self.step)
        if self._recorder.is_recording:
            self._guarded("recorder", lambda: self._record(self._recorder.after_step, optimizer, self.step))
        if self._team is None and self._side is None and self._agenda.is_quiet(self.step):
            self._seconds_aside += time.perf_counter() - started
        else:
            self._guarded("probes", self._measure_due)
        self._pass_on_verdicts()

    def _pass_on_verdicts(self) -> None:
        if self._lookout is not None and self._on_verdict is not None:
            for verdict in self._lookout.take():
                self._on_verdict(verdict)

    def _guarded(self, part: str, action: Callable[[], None]) -> None:
        """Run our own code inside the user's loop: what fails is one warning, and training goes on."""
        try:
            action()
        except Exception as error:
            self._warn(part, f"expected the {part} to work, got {type(error).__name__}: {error} at step {self.step}")

    def _record(self, hook: Callable[[Optimizer, int], None], optimizer: Optimizer, step: int) -> None:
        started = time.perf_counter()
        hook(optimizer, step)
        self._seconds_recording += time.perf_counter() - started

    def _measure_due(self) -> None:
        started = time.perf_counter()
        self._charge_hooks(started)
        names = self._agenda.due(self.step, started)
        if self._budget is not None and self._budget.warning is not None:
            self._warn("budget", self._budget.warning)
        if self._team is None:
            self._measure(names, started, lambda: self._recorder.at(self.step))
            return
        with self._team.meeting(
            self.step, names, momentary=self._momentary, recorded=lambda: self._recorder.at(self.step),
            warn=lambda message: self._warn(message, message),
        ) as (names, trajectory):  # fmt: skip
            self._measure(names, started, trajectory)

    def _measure(self, names: list[str], started: float, trajectory: Callable[[], Trajectory]) -> None:
        if not names and self._side is None:
            return
        sent = Sent(names) if self._side is None else self._side.send(names, self.step, paced=self._paced)
        names = sent.here
        if not names and not sent.there:
            return
        meter = Meter(time.perf_counter)
        readings = take_readings(
            self._subject, [self._diagnostics[name] for name in names], step=self.step,
            trajectory=trajectory, on_error=self._probe_failed, meter=meter,
        ) if names else {}  # fmt: skip
        own, shared = meter.split({name: self._families[name] for name in names})
        own |= dict.fromkeys(sent.there, sent.seconds / max(len(sent.there), 1))
        for name in (measured := self._momentary & set(names)):
            own[name] += self._seconds_recording / len(measured)
        seconds = time.perf_counter() - started
        if measured:
            seconds, self._seconds_recording = seconds + self._seconds_recording, 0.0
        self._pay(own, shared, seconds, meter.seconds(TRAIN_PASS))
        self._learn(names, readings)
        self._hear({name: r.value for name, r in readings.items() if isinstance(r.value, float)})
        self._write(readings, seconds)
        self._seconds_aside += time.perf_counter() - started - seconds

    def _pay(self, own: dict[str, float], shared: dict[str, float], seconds: float, passed: float) -> None:
        """Charge a measurement: what no one of them caused is their families' in equal parts."""
        now = time.perf_counter()
        self._ledger.charge(seconds, now)
        if self._budget is None:
            return
        rest = max(0.0, seconds - sum(own.values()) - sum(shared.values()))
        shared = {family: cost + rest / len(shared) for family, cost in shared.items()}
        paced = {name: cost for name, cost in own.items() if name in self._paced}
        families = {self._families[name] for name in paced}
        self._budget.pay(paced, {f: cost for f, cost in shared.items() if f in families}, now, passed=passed)

    def _learn(self, names: Iterable[str], readings: Mapping[str, Reading]) -> None:
        if self._budget is None:
            return
        for name in self._paced & set(names):
            parts = [readings[part] for part in metric_names(type(self._diagnostics[name]))]
            found = self._newness.seen(name, parts, time.perf_counter())
            if found is not None:
                self._budget.learn(name, *found)

    def _charge_hooks(self, now: float) -> None:
        """Write down what hooks have taken since the last time."""
        self._ledger.charge(self._seconds_aside, now)
        if self._budget is not None:
            self._budget.ledger.charge(self._seconds_aside, now)
        self._seconds_aside = 0.0

    def _write(self, readings: Mapping[str, Reading], seconds: float) -> None:
        now = time.perf_counter()
        cost = {
            "probe.seconds": seconds,
            "probe.share": self._ledger.share_so_far(now),
            "probe.share_of_last_minute": self._ledger.share_of_last_minute(now),
        }
        self._append(Record(self.step, time.time(), {**readings, **self._plan()}, cost))

    def _plan(self) -> dict[str, Reading]:
        """Return the intervals that the budget has chosen and the prices they rest on, if they are new."""
        if self._budget is None or self._budget.intervals == self._told:
            return {}
        self._told = dict(self._budget.intervals)
        names = tuple(self._told)
        return {
            "probe.interval": Reading(value=[float(steps) for steps in self._told.values()], keys=names),
            "probe.price": Reading(value=[self._budget.price(name) for name in names], keys=names),
        }

    def _append(self, record: Record) -> None:
        self._keep(record)
        if self._forwarder is not None:
            for message in self._forwarder.failed:
                self._warn(message, message)

    def _keep(self, record: Record) -> None:
        """Record from any thread: what is measured beside training comes from another one."""
        with self._keeping:
            self._writer.append(record)
            if self._forwarder is not None:
                self._forwarder.put(record.step, record.readings, record.scalars)

    def _probe_failed(self, name: str, error: Exception) -> None:
        self._warn(
            name, f"expected a reading of {name!r}, got {type(error).__name__}: {error} at step {self.step}; "
            f"training goes on without it: leave {name!r} out of probes= to silence this",
        )  # fmt: skip

    def _warn(self, subject: str, message: str) -> None:
        if subject in self._warned:
            return
        self._warned.add(subject)
        self._writer.event(Event(self.step, time.time(), "warning", message))
        try:
            warnings.warn(f"trainvitals: {message}", RuntimeWarning, stacklevel=4)
        except RuntimeWarning:  # warnings are errors in this program: it must not end the run
            print(f"trainvitals: {message}", file=sys.stderr)

    # The end ------------------------------------------------------------------------------------

    def _close(self, status: Status, kind: str, message: str) -> None:
        if not self._is_open:
            return
        self._is_open = False
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        atexit.unregister(self._at_exit)
        if self._team is not None and self._subject.optimizer is not None:
            self._team.leave(self._subject.optimizer, self.step)
        if self._side is not None:
            self._side.close(self.step, in_peace=kind == "finished")
        self._close_sinks()
        self._writer.event(Event(self.step, time.time(), kind, message))
        self._writer.close(status, message)
        if self._lookout is not None:
            self._lookout.close()
            if kind == "finished":  # not while an error or Ctrl-C is on its way out
                self._pass_on_verdicts()

    def _close_sinks(self) -> None:
        if self._forwarder is None:
            return
        self._forwarder.close()
        dropped = self._forwarder.num_dropped
        for message in [*self._forwarder.failed, *([f"{dropped} records were not forwarded to sinks"] * bool(dropped))]:
            self._warn(message, message)

    def _at_exit(self) -> None:
        """Close a watch that was left open: the program ends, by an uncaught error or in peace."""
        if os.getpid() != self._pid:
            return
        error = getattr(sys, "last_value", None)
        if isinstance(error, Exception):
            self._close(Status.CRASHED, "error", f"{type(error).__name__}: {error}")
        elif error is not None:
            self._close(Status.FINISHED, "interrupted", f"stopped by {type(error).__name__}")
        else:
            self.close()
