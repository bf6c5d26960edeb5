"""The ranks that train one model, as `watch` sees them: one run, one probe, work shared, and no rank left waiting.

The leader (the first rank) decides what is measured, measures it and writes the run. The others meet it at steps
that follow from the schedule alone, hear there what is measured, and help. No rank starts talking to the others
unless all of them do: what only one rank can know (a budget, an error) is said at such a meeting.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import nn
from torch.optim import Optimizer

from trainvitals.diagnostics.base import Diagnostic, Needs, Trajectory
from trainvitals.probes.arrival import await_everybody
from trainvitals.probes.crew_helper import CrewHelper
from trainvitals.probes.crew_leader import CrewLeader
from trainvitals.probes.meetings import Meetings
from trainvitals.probes.parallel_model import PARTS, Spread, device_of, spread_of
from trainvitals.probes.rank_probes import gathered_probes, parts_for, same_sets
from trainvitals.probes.ranks import Ranks
from trainvitals.probes.schedule import Schedule
from trainvitals.probes.silent_writer import SilentWriter
from trainvitals.probes.subject import Subject, float32_if_half
from trainvitals.store.resuming import Begun

T = TypeVar("T")
_SHARED = Needs.HVP | Needs.GRADIENT | Needs.PER_SAMPLE_GRADIENTS | Needs.GRADIENT_GRAM


def team_of(model: nn.Module, ranks: str, mode: str) -> Team | None:
    """Return the ranks that train this model, None where this process watches alone. Every rank calls it.

    Raises:
        ValueError: see `spread_of`; if probe passes would talk to other ranks; or if some ranks do not call it.
    """
    spread = spread_of(model, ranks)
    if spread is None:
        return None
    if mode == "train" and any(isinstance(module, nn.SyncBatchNorm) for module in spread.model.modules()):
        raise ValueError(
            "expected mode='eval' for a model with SyncBatchNorm over several ranks, got 'train' in trainvitals.watch; "
            "its layers would wait for ranks that are not measuring: leave mode= out"
        )
    await_everybody(spread.members)
    return Team(spread)


class Team:
    """The ranks that train one model together, with the same calls of `watch` on each of them."""

    def __init__(self, spread: Spread) -> None:
        self._device = device = device_of(spread.model)
        self.ranks = Ranks(spread.members, device)
        self.kind = spread.kind
        self.trained = spread.model  # whose parameters the optimiser holds
        self.is_over = False  # a rank has left, or the ranks have lost each other: nobody waits for anybody
        self._weights: Any = None
        if spread.kind == PARTS:
            from trainvitals.probes.sharded_weights import ShardedWeights

            self._weights = ShardedWeights(spread.model, self.ranks, device)
        self._subject: Subject | None = None
        self._crew: CrewLeader | CrewHelper | None = None
        self._diagnostics: list[Diagnostic] = []
        self._schedules: Mapping[str, Schedule] = {}
        self._is_paced = False
        self._meetings = Meetings([], is_paced=False)
        self._waiting: set[str] = set()  # chosen by the leader between two meetings

    @property
    def is_leader(self) -> bool:
        """Whether this rank measures and writes the run."""
        return self.ranks.is_leader

    @property
    def has_parts(self) -> bool:
        """Whether no rank has the whole weights."""
        return self._weights is not None

    def prepared(
        self, train: Any, heldout: Any, *, has_forward: bool, max_samples: int, is_inline: bool = True
    ) -> tuple[nn.Module, list[Any], Any]:
        """Return the model for probe passes, and the probes of all ranks as one.

        Raises:
            ValueError: on every rank, if one of them has no probe batch; or if measuring is not to be inline.
        """
        if not is_inline:
            raise ValueError(
                "expected where='inline' for a model that several ranks train, got a process beside training in "
                "trainvitals.watch; leave where= out"
            )
        chunks, sets = gathered_probes(
            self.ranks, train, heldout, has_forward=has_forward, max_samples=max_samples, device=self._device
        )
        if self._weights is not None:
            self._weights.gather()
        return self.trained if self._weights is None else self._weights.model, chunks, same_sets(sets)

    def tried(self, action: Callable[[], T]) -> T:
        """Return what the action gives, when it went well on every rank.

        Raises:
            Exception: what it raised here; a ValueError if it went wrong on another rank.
        """
        problem: Exception | None = None
        found: list[T] = []
        try:
            found.append(action())
        except Exception as error:
            problem = error
        reasons = self.ranks.gathered("" if problem is None else f"{type(problem).__name__}: {problem}")
        if problem is not None:
            raise problem
        for rank, reason in zip(self.ranks.members, reasons, strict=True):
            if reason:
                raise ValueError(f"expected trainvitals.watch to go on every rank, got on rank {rank}: {reason}")
        return found[0]

    def begun(self, begin: Callable[[], Begun]) -> Begun:
        """Return the run: begun by the leader, and for the others one into which they write nothing.

        Raises:
            Exception: on the leader, what beginning raised; a ValueError with the same words elsewhere.
        """
        begun = self.tried(lambda: begin() if self.is_leader else None)
        if begun is not None:
            self.ranks.told((begun.writer.id, str(begun.writer.path), begun.name, begun.step))
            return begun
        told = self.ranks.told()
        id, path, name, step = told  # pyright: ignore[reportGeneralTypeIssues]
        silent: Any = SilentWriter(id, path)
        return Begun(silent, name, step)

    def engage(
        self, subject: Subject, diagnostics: Sequence[Diagnostic], schedules: Mapping[str, Schedule], *, is_paced: bool
    ) -> None:
        """Agree on what is measured and share the work on the train probe out.

        Raises:
            ValueError: on every rank, if they were called with different arguments.
        """
        self._subject, self._diagnostics, self._schedules = subject, list(diagnostics), schedules
        self._is_paced = is_paced
        # without addresses, which a schedule class of the user's own may show
        phrases = {name: re.sub(r" at 0x[0-9a-f]+", "", str(schedule)) for name, schedule in schedules.items()}
        mine = phrases, is_paced, subject.mode, subject.seed
        others = self.ranks.gathered(mine)
        if any(other != others[0] for other in others):
            raise ValueError(
                "expected the same arguments on every rank, got other metrics, schedules, budgets, modes or seeds on "
                "some of them in trainvitals.watch; only train= and heldout= may differ"
            )
        parts = self.tried(lambda: parts_for(subject, self.ranks.size))
        if parts is not None:
            kind = CrewLeader if self.is_leader else CrewHelper
            self._crew = kind(self.ranks, *parts)
        self._forget_weights()
        self._call_meetings()

    def payable(self, asked: Mapping[str, T], diagnostics: Sequence[Diagnostic]) -> dict[str, T]:
        """Return what a budget can pace, of what it is asked to.

        Where every rank has to record its part of a training step, the schedule alone says when: a clock would not
        say the same on all of them.
        """
        recorded = {d.name for d in diagnostics if self.has_parts and d.needs & Needs.TRAJECTORY}
        return {name: value for name, value in asked.items() if name not in recorded}

    def words(self) -> dict[str, Any]:
        """Return what a run says of its ranks."""
        return {"num_ranks": self.ranks.size, "spread": self.kind}

    # A step -------------------------------------------------------------------------------------

    @contextmanager
    def meeting(
        self,
        step: int,
        names: list[str],
        *,
        momentary: frozenset[str],
        recorded: Callable[[], Trajectory],
        warn: Callable[[str], None],
    ) -> Iterator[tuple[list[str], Callable[[], Trajectory]]]:
        """Lend the help of all ranks to a measurement after a step; every rank comes here after every step.

        Args:
            step: optimiser steps taken.
            names: what is to be measured; only the leader's count.
            momentary: what exists only at its step and cannot wait for a meeting.
            recorded: this rank's part of what the last training steps did.
            warn: is told once if a helper fails.

        Yields:
            What to measure here and now, nothing on helpers, and what gives the whole trajectory.
        """
        joint, was_over = self._joint(), self.is_over
        chosen = self._agreed(step, names, joint, momentary)
        if self.is_over and not was_over and self.is_leader:
            alone = "nothing is measured any more" if self.has_parts else "rank 0 measures alone from here on"
            warn(f"another rank has closed its watch; {alone}")
        together = [name for name in chosen if name in joint]
        if not together or self.is_over:
            yield (chosen if self.is_leader else []), recorded
            return
        assert self._subject is not None
        needs = Needs.NOTHING
        for diagnostic in self._diagnostics:
            needs |= diagnostic.needs if diagnostic.name in together else Needs.NOTHING
        crew = self._crew if self._crew is not None and self._crew.is_willing and needs & _SHARED else None
        try:
            self.is_over = True  # unless all goes well among the ranks
            trajectory = self._gathered(needs, recorded)
            if isinstance(crew, CrewHelper):
                crew.serve(self._subject)
                self._call_meetings()
            self.is_over = False
            with self._helped(crew, warn):
                yield (chosen if self.is_leader else []), trajectory
        finally:
            self._forget_weights()

    def leave(self, optimizer: Optimizer, step: int) -> None:
        """Say at the next meeting that this rank watches no longer: nobody is to wait for it."""
        if self.is_over or not self._joint():
            return
        count = [step]

        def farewell(*_: Any) -> None:
            count[0] += 1
            try:
                self._agreed(count[0], [], self._joint(), frozenset(), is_leaving=True)
            except Exception:
                self.is_over = True
            if self.is_over:
                handle.remove()

        handle = optimizer.register_step_post_hook(farewell)

    # How it is done -----------------------------------------------------------------------------

    def _joint(self) -> set[str]:
        """Return the names of what ranks measure together; the rest the leader measures when it likes."""
        if self.has_parts:
            return {d.name for d in self._diagnostics}
        if self._crew is None or not self._crew.is_willing:
            return set()
        return {d.name for d in self._diagnostics if d.needs & _SHARED}

    def _call_meetings(self) -> None:
        self._meetings = Meetings([self._schedules[name] for name in sorted(self._joint())], is_paced=self._is_paced)

    def _agreed(
        self, step: int, names: list[str], joint: set[str], momentary: frozenset[str], *, is_leaving: bool = False
    ) -> list[str]:
        """Return what the leader measures now: on every rank if they meet, on the leader alone if not."""
        if self.is_over:
            return [name for name in names if not self.has_parts]
        if not self._meetings.at(step):
            self._waiting |= {name for name in names if name in joint and name not in momentary}
            return [name for name in names if name not in joint] if self.is_leader else []
        wanted = {*names, *self._waiting} if self.is_leader and not is_leaving else set()
        self._waiting.clear()
        order = [d.name for d in self._diagnostics]
        self.is_over = True  # until the meeting has come about
        found = self.ranks.counted([int(is_leaving), step, *(int(name in wanted) for name in order)])
        if found[1] != step * self.ranks.size:
            raise RuntimeError(f"the ranks have taken different numbers of optimiser steps, {step} here")
        self.is_over = found[0] > 0
        if self.is_over:
            return [name for name in order if name in wanted and not self.has_parts]
        return [name for name, votes in zip(order, found[2:], strict=True) if votes]

    def _gathered(self, needs: Needs, recorded: Callable[[], Trajectory]) -> Callable[[], Trajectory]:
        """Put together what the measurement reads, where no rank has it whole; give what yields the trajectory."""
        if self._weights is None or self._subject is None:
            return recorded
        self._weights.gather()
        if needs & Needs.OPTIMIZER_STATE and self._subject.optimizer is not None:
            self._subject.optimizer_seen = self._weights.optimizer(self._subject.optimizer)
        if not needs & Needs.TRAJECTORY:
            return recorded
        return self._weights.trajectory(recorded)

    @contextmanager
    def _helped(self, crew: CrewLeader | CrewHelper | None, warn: Callable[[str], None]) -> Iterator[None]:
        if not isinstance(crew, CrewLeader) or self._subject is None:
            yield
            return
        weights = [float32_if_half(p) for p in self._subject.model.parameters() if p.requires_grad]
        crew.begin(weights, self._subject.model.buffers(), warn)
        self._subject.crew = crew
        try:
            yield
        finally:
            self._subject.crew = None
            self.is_over = True  # unless the helpers hear that this is the end
            crew.end()
            self.is_over = crew.is_interrupted
            self._call_meetings()

    def _forget_weights(self) -> None:
        if self._weights is not None and self._subject is not None:
            self._weights.forget()
            self._subject.optimizer_seen = None
