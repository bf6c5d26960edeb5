"""`trainvitals conditions`: what verdicts are about, and the page that is generated from it."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.table import Table

from trainvitals.commands.runs import Json
from trainvitals.commands.terminal import cell, console, example, say, to_json, wrong_usage
from trainvitals.verdicts.condition import Condition
from trainvitals.verdicts.condition import conditions as found_conditions

HEADER = """# What verdicts are about

Written by `trainvitals conditions --markdown > docs/verdicts.md` from the conditions themselves; do not edit.

A verdict is one of `healthy`; `watch`, some evidence or something worth knowing; `alarm`, several independent pieces
of evidence; `unknown`, too little was measured, and it says what. The worst come first, among equals the earliest;
what probably follows from another stands right behind it, and `follows` and `relation` say so. `since` is the step at
which it began, `noticed` the step from which on the measurements were enough to tell. Judgements compare a run with
its own scale, noise, loss and optimiser, never with absolute bands; a metric that was not measured lowers the
confidence, or makes the verdict `unknown`. They read recorded series only, so a live run, a finished one and a store
of last year are judged alike.

How often they are right, on labelled runs that no threshold was set on, and beside naive rules:
[benchmarks/results/verdicts.md](../benchmarks/results/verdicts.md).
"""


def conditions(
    name: Annotated[str | None, typer.Argument(help="A condition, as overfitting; all if left out.")] = None,
    json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="The page docs/verdicts.md.")] = False,
) -> None:
    """List what verdicts are about: what each says, reads, rests on, and what to try."""
    if json and markdown:
        wrong_usage("expected --json or --markdown, got both; leave one out")
    known = {condition.id: condition for condition in found_conditions()}
    if name is not None and name not in known:
        wrong_usage(f"expected one of {', '.join(known)}, got {name!r}; `trainvitals conditions` lists them")
    chosen = list(known.values()) if name is None else [known[name]]
    if json:
        print(to_json([_as_json(condition) for condition in chosen]))
    elif markdown:
        print(page(chosen), end="")
    elif name is not None:
        say(f"{name}: {chosen[0].title}")
        for fact, text in facts(chosen[0]):
            say(f"  {fact:<8} {text}")
    else:
        console().print(table(chosen))


def _as_json(condition: Condition) -> dict[str, Any]:
    advice = [{"text": a.text, "source": a.source} for a in condition.advice]
    return {"id": condition.id, "title": condition.title, **dict(facts(condition)), "try": advice}


def facts(condition: Condition) -> Iterable[tuple[str, str]]:
    """Yield what is known of a condition beyond its title."""
    yield "says", condition.says
    yield "judged", inspect.cleandoc(type(condition).__doc__ or "")
    yield "reads", ", ".join(condition.reads)
    yield "source", condition.source
    if condition.follows:
        yield "follows", ", ".join(f"`{name}`" for name in condition.follows)
    if condition.is_informational:
        yield "kind", "to know: it never goes beyond `watch`"
    for advice in condition.advice:
        yield "try", f"{advice.text} ({advice.source})"


def table(chosen: Iterable[Condition]) -> Table:
    """Return the conditions as a table."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("condition", "what it says"):
        shown.add_column(header, overflow="fold")
    for condition in chosen:
        shown.add_row(cell(condition.id), cell(condition.says))
    return shown


def page(chosen: Iterable[Condition]) -> str:
    """Return the conditions as Markdown, a heading each."""
    parts = [HEADER]
    for condition in chosen:
        known = list(facts(condition))
        words = {fact: text for fact, text in known if fact in ("says", "judged")}
        parts.append(f"## `{condition.id}`\n\n**{condition.title}.** {words['says']}\n\n{words['judged']}\n")
        parts.append("\n".join(f"- {fact}: {text}" for fact, text in known if fact not in words) + "\n")
    return "\n".join(parts)


COMMANDS = (
    (conditions, example("trainvitals conditions", "trainvitals conditions overfitting")),
)
