"""`trainvitals tag` and `note`: words about a run that is over."""

from __future__ import annotations

from typing import Annotated

import typer

from trainvitals.commands.runs import RunName, Store
from trainvitals.commands.terminal import example, say, wrong_usage


def tag(
    run: RunName,
    tags: Annotated[list[str] | None, typer.Argument(help="Tags to give.", metavar="[TAG]...")] = None,
    remove: Annotated[list[str] | None, typer.Option(help="A tag to take away; may be repeated.")] = None,
    store: Store = "runs/",
) -> None:
    """Give a run tags, take tags away, or, without either, show them."""
    from trainvitals.annotating import tag_run
    from trainvitals.run import UnknownRunError, open_run

    try:
        is_change = bool(tags or remove)
        found = tag_run(run, store, tags or (), remove or ()) if is_change else open_run(run, store).tags
    except UnknownRunError as error:
        wrong_usage(error)
    say(", ".join(found) if found else "no tags")


def note(
    run: RunName,
    text: Annotated[str | None, typer.Argument(help="A line to add to the note.", metavar="[TEXT]")] = None,
    store: Store = "runs/",
) -> None:
    """Add a line to the note of a run, or, without one, show the note."""
    from trainvitals.annotating import note_run
    from trainvitals.run import UnknownRunError, open_run

    try:
        whole = note_run(run, store, text) if text is not None else open_run(run, store).note
    except UnknownRunError as error:
        wrong_usage(error)
    for line in whole.splitlines() or ["no note"]:
        say(line)


COMMANDS = (
    (tag, example("trainvitals tag latest baseline sweep-3", "trainvitals tag digits-mlp --remove sweep-3")),
    (note, example('trainvitals note latest "the seed that diverged"', "trainvitals note latest")),
)
