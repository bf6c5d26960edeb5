"""Numbers as they stand in a sentence: "12 %", "3 percentage points", "0.0289", "3,760"."""

from __future__ import annotations

import re
from collections.abc import Sequence

from trainvitals.schema import Evidence

_PLACE = re.compile(r"\{value(?::(share|points|part))?\}")


def figure(value: float, kind: str = "") -> str:
    """Return a number at three digits: plain, as a share in per cent, or as a difference of shares in points.

    A "part" is a share of a whole: from 1 on it is "all".

    >>> figure(0.02891), figure(3759.6), figure(1.2e7), figure(0.994, "share"), figure(0.0804, "points")
    ('0.0289', '3,760', '1.2e+07', '99.4 %', '8 percentage points')
    """
    if kind == "part" and value >= 1:
        return "all"
    if kind:
        percent = 100 * value
        whole = 10 <= abs(percent) < 1000 and not 99 < percent < 100  # 99.8 % is not all of it
        text = _plain(round(percent) if whole else percent, 3 if whole or percent > 99 else 2)
        return f"{text} {'percentage points' if kind == 'points' else '%'}"
    return _plain(value, 3)


def _plain(value: float, digits: int) -> str:
    text = f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.{digits}g}"
    return text.replace("-", "−", 1) if value < 0 else text


def kind_of(words: str) -> str:
    """Return how the figure in the words is given: "", "share", "points" or "part"."""
    found = _PLACE.search(words)
    return (found.group(1) or "") if found else ""


def filled(words: str, value: float) -> str:
    """Return the words with their figure.

    >>> filled("{value:share} of the units are dead", 0.5)
    '50 % of the units are dead'
    """
    return _PLACE.sub(lambda place: figure(value, place.group(1) or ""), words)


def with_level(words: str, value: float, comparison: str, level: float, quantity: str) -> str:
    """Return the words with their figure, and on which side of which level it counts.

    >>> with_level("{value:share} of the units are dead", 0.7, "above", 0.5, "units.dead")
    '70 % of the units are dead (counts above 50 %)'
    """
    told = filled(words, value) if _PLACE.search(words) else f"{words}, {quantity} is {figure(value)}"
    return f"{told} (counts {comparison} {figure(level, kind_of(words)).removesuffix(' percentage points')})"


def told(evidence: Sequence[Evidence]) -> list[Evidence]:
    """Return the pieces of evidence that a reader is told of: the first three that hold and repeat none."""
    return [e for e in evidence if e.holds and not e.repeats][:3]


def sentences(head: str, evidence: Sequence[Evidence]) -> str:
    """Return a head and what holds as sentences: the newest numbers together, what is past each with its own step.

    >>> now = Evidence("loss", 90, 2.0, "above", 1.0, "", sentence="the loss is 2 (counts above 1)")
    >>> sentences("It is lost", [now])
    'It is lost. At step 90, the loss is 2 (counts above 1).'
    """
    current = [e for e in evidence if e.holds and not e.is_past]
    parts = [f"{head}."]
    if current:
        parts.append(f"At {_steps(current)}, {'; '.join(e.sentence or e.words for e in current)}.")
    parts += [f"At step {e.step:,}, {e.sentence or e.words}." for e in evidence if e.holds and e.is_past]
    return " ".join(parts)


def _steps(evidence: Sequence[Evidence]) -> str:
    first, last = min(e.step for e in evidence), max(e.step for e in evidence)
    return f"step {last:,}" if first == last else f"steps {first:,} to {last:,}"
