"""The command `trainvitals`: one function a command, each in the file of its question.

Exit codes: 0 done, 1 the work failed, 2 wrong usage.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from types import FunctionType
from typing import Annotated

import typer

import trainvitals
from trainvitals import commands
from trainvitals.commands.terminal import one_line_errors, say

app = typer.Typer(
    name="trainvitals",
    help="The vital signs of a neural network, read while it trains.",
    epilog="Each command has its own --help with examples. Exit codes: 0 done, 1 the work failed, 2 wrong usage.",
    no_args_is_help=True,
    rich_markup_mode=None,  # help and errors as plain text: names in them are never read as markup
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _add(command: FunctionType, epilog: str) -> None:
    app.command(name=command.__name__, epilog=epilog)(one_line_errors(command))


for _module in pkgutil.iter_modules(commands.__path__, f"{commands.__name__}."):
    for _command, _epilog in getattr(import_module(_module.name), "COMMANDS", ()):
        _add(_command, _epilog)
    for _group in getattr(import_module(_module.name), "GROUPS", ()):
        app.add_typer(_group)


def _say_version(wanted: bool) -> None:
    if wanted:
        say(trainvitals.__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_say_version)
    ] = False,
) -> None:
    pass  # the option's callback has done it


def main() -> None:
    """Run the command line."""
    app()
