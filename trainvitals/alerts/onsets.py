"""What is new between two looks at a run's verdicts."""

from __future__ import annotations

from collections.abc import Sequence

from trainvitals.schema import Verdict, VerdictState


class Onsets:
    """The states of the last look, condition by condition.

    >>> onsets = Onsets()
    >>> [v.state for v in onsets.changed([Verdict("overfitting", "Overfitting", VerdictState.ALARM, 400)])]
    [<VerdictState.ALARM: 'alarm'>]
    >>> onsets.changed([Verdict("overfitting", "Overfitting", VerdictState.ALARM, 410)])
    []
    """

    def __init__(self) -> None:
        self._last: dict[str, VerdictState] = {}

    def changed(self, verdicts: Sequence[Verdict]) -> list[Verdict]:
        """Return the verdicts whose state is another than at the last look.

        At the first look that is what is not well. `unknown` is no news: a condition that comes back from it to
        the state that it had before has not changed.
        """
        found = []
        for verdict in verdicts:
            if verdict.state == VerdictState.UNKNOWN:
                continue
            before = self._last.get(verdict.condition, VerdictState.HEALTHY)
            self._last[verdict.condition] = verdict.state
            if verdict.state != before:
                found.append(verdict)
        return found

