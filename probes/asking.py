"""What a budget is told of each diagnostic before anything is measured: family, guessed price, weight."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from trainvitals.diagnostics.base import Diagnostic, Needs
from trainvitals.probes.budget import Asked
from trainvitals.probes.schedule import Every, Schedule
from trainvitals.verdicts.condition import conditions

# Forward passes over the probe that a measurement may take: of its own, and shared by all that need the same. Guesses,
# as counted in benchmarks/results/metrics_cost.md on small models; the first measurement finds the price.
_PASSES = (
    (Needs.HVP, 150.0, 4.0),
    (Needs.GRADIENT_GRAM, 10.0, 30.0),
    (Needs.PER_SAMPLE_GRADIENTS, 1.0, 20.0),
)
_PASSES_OF_SLOW = 20.0
_OF_VERDICTS = 2.0  # times as much weight where a verdict reads it


def asked_of(
    diagnostics: Iterable[Diagnostic], schedules: Mapping[str, Schedule], paced: Collection[str], *, is_free: bool
) -> dict[str, Asked]:
    """Return what the budget is told of those that it paces.

    Args:
        diagnostics: what is measured.
        schedules: of each, by name.
        paced: names of those that the budget paces.
        is_free: whether the schedules are the diagnostics' own intervals, which slow training may shorten.
    """
    read = {name for condition in conditions() for name in condition.reads}
    return {d.name: _asked(d, schedules[d.name], read, is_free) for d in diagnostics if d.name in paced}


def _asked(diagnostic: Diagnostic, schedule: Schedule, read: Collection[str], is_free: bool) -> Asked:
    needs = diagnostic.needs
    own, shared = next(((own, shared) for need, own, shared in _PASSES if needs & need), (1.0, 1.0))
    return Asked(
        family=diagnostic.cost(),
        interval=schedule.num_steps if isinstance(schedule, Every) else None,
        is_free=is_free and not needs & Needs.TRAJECTORY,  # copies are begun a step ahead, on every rank
        weight=_OF_VERDICTS if any(name in read for name in diagnostic.descriptions()) else 1.0,
        num_passes=max(own, _PASSES_OF_SLOW) if diagnostic.is_slow else own,
        num_shared=shared,
        is_dear=diagnostic.is_dear(),
    )
