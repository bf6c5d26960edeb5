"""How text reaches a terminal, a JSON reader or a spreadsheet without doing anything there.

Run names, layer names and messages come out of files that others may have written. Rich would read
`[red]` in them, a terminal would obey escape sequences, a spreadsheet would run `=cmd()`.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import math
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.text import Text

P = ParamSpec("P")
T = TypeVar("T")

_INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, bidirectional overrides, surrogates, line separators
_FORMULA = tuple("=+-@＝＋－＠")  # OWASP, "CSV Injection"; the wide forms are read as formulas too
_WIDE = 160  # columns where the output is no terminal: rich would assume 80 and break the lines


def printable(text: object) -> str:
    r"""Return the text with every invisible or controlling character spelled out.

    Example:
        >>> printable("\x1b[31mred")
        '\\x1b[31mred'
    """
    return "".join(
        char.encode("unicode_escape").decode("ascii") if unicodedata.category(char) in _INVISIBLE else char
        for char in str(text)
    )


def cell(text: object, style: str = "") -> Text:
    """Return a table cell that shows the text as it is: no markup, no control characters."""
    return Text(printable(text), style=style)


def console(*, stderr: bool = False) -> Console:
    """Return a console on the present stdout or stderr, wide enough where that is no terminal."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _WIDE
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, width=width)


def say(text: object) -> None:
    """Print one line for a reader."""
    typer.echo(printable(text))


def warn(text: object) -> None:
    """Print one line beside the output, on stderr."""
    typer.echo(printable(text), err=True)


def wrong_usage(text: object) -> NoReturn:
    """End the command with the message and exit code 2."""
    raise typer.BadParameter(printable(text))


def failed(text: object) -> NoReturn:
    """End the command with the message and exit code 1."""
    warn(f"Error: {text}")
    raise typer.Exit(1)


def one_line_errors(command: Callable[P, T]) -> Callable[P, T]:
    """Turn the errors that a command expects from files and arguments into a line and exit code 1."""

    @functools.wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except BrokenPipeError:  # `trainvitals get … | head`: the reader has what it wants
            sys.stderr.close()
            raise typer.Exit(0) from None
        except (OSError, ValueError, LookupError) as error:
            failed(error)

    return guarded


def example(*lines: str) -> str:
    """Return the epilog of a command's help: its examples, line by line."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def to_json(value: Any) -> str:
    """Return strict JSON: NaN and the infinities, which JSON has no numbers for, become strings.

    Example:
        >>> to_json({"value": float("nan")})
        '{"value": "NaN"}'
    """
    return json.dumps(_plain(value), allow_nan=False)


def _plain(value: Any) -> Any:
    """Return the value in JSON's own types; numpy and pandas values by their `tolist`."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, (str, int, float)):
        return value
    return _plain(value.tolist()) if hasattr(value, "tolist") else str(value)


def to_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return comma-separated text whose words cannot start a formula; an empty cell is a missing value.

    Example:
        >>> print(to_csv(["step", "key"], [(1, "=cmd()"), (2, None)]), end="")
        step,key
        1,'=cmd()
        2,
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_csv_cell(value) for value in row] for row in rows)
    return out.getvalue()


def _csv_cell(value: Any) -> Any:
    if not isinstance(value, str):
        return "" if value is None else value
    text = printable(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def clock(seconds: float | None) -> str:
    """Return a moment (seconds since the epoch) in local time, to the second."""
    return "" if seconds is None else datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")
