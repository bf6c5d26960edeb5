"""The alert: one way of telling somebody of a verdict."""

from __future__ import annotations

import abc
import unicodedata

from trainvitals.schema import Verdict

MAX_TEXT = 2000  # characters of one message
SECONDS = 10.0  # the longest that one delivery may take
_INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, directions, surrogates, line separators


class AlertError(RuntimeError):
    """An alert could not be delivered; the message says to whom, never with what secret."""


class Alert(abc.ABC):
    """One way of telling somebody. Abstract, or final: a subclass is a dataclass with what it needs to know."""

    @abc.abstractmethod
    def send(self, verdict: Verdict, run_name: str) -> None:
        """Tell of one verdict, within `SECONDS`.

        Raises:
            AlertError: if it could not be delivered.
        """


def message(verdict: Verdict, run_name: str) -> str:
    """Return the verdict as one line: run, state, since when, what is found, what to try first.

    Names come from files that others may have written: nothing in them can start a line or steer a terminal.

    Example:
        >>> message(Verdict("overfitting", "Overfitting", "alarm", 400, summary="The held-out loss rises."), "digits")
        'digits: ALARM Overfitting, since step 400. The held-out loss rises.'
    """
    since = "" if verdict.since is None else f", since step {verdict.since}"
    parts = [f"{run_name}: {str(verdict.state).upper()} {verdict.title}{since}.", verdict.summary]
    if verdict.advice:
        parts.append(f"Try: {verdict.advice[0].text}")
    return one_line(" ".join(part for part in parts if part))


def one_line(text: str) -> str:
    r"""Return a text without line ends, control and direction characters, cut at `MAX_TEXT`.

    >>> one_line("a\nb\x1b[31m")
    'a b?[31m'
    """
    flat = " ".join(text.split())
    shown = "".join("?" if unicodedata.category(char) in _INVISIBLE else char for char in flat)
    return shown if len(shown) <= MAX_TEXT else shown[: MAX_TEXT - 1] + "…"
