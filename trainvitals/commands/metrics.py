"""`trainvitals metrics`: the catalogue of what can be measured, and the page that is generated from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Annotated

import typer
from rich.table import Table

from trainvitals.commands.runs import Json
from trainvitals.commands.terminal import cell, console, example, say, to_json, wrong_usage
from trainvitals.schema import Description, Question

HEADER = """# What is measured

Written by `trainvitals metrics --markdown > docs/metrics.md` from the diagnostics themselves; do not edit.
A name with several parts can be asked for as a whole: `gap` gives `gap.loss` and `gap.accuracy`.
"""


def metrics(
    name: Annotated[str | None, typer.Argument(help="A metric, a group or a preset; all if left out.")] = None,
    json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="The page docs/metrics.md.")] = False,
) -> None:
    """List what can be measured: definition, unit, source and cost."""
    if json and markdown:
        wrong_usage("expected --json or --markdown, got both; leave one out")
    found = _described(name)
    if json:
        print(to_json([dataclasses.asdict(words) for words in found.values()]))
    elif markdown:
        print(page(found), end="")
    elif name is not None and name in found:
        say_one(found[name])
    else:
        console().print(table(found))


def _described(name: str | None) -> Mapping[str, Description]:
    """Return the descriptions that a name stands for, in order of the questions and names."""
    from trainvitals.diagnostics.registry import described, matching  # torch

    known = described()
    if name is not None and name not in known:
        try:
            known = {key: words for cls in matching(name) for key, words in cls.descriptions().items()}
        except ValueError as error:
            wrong_usage(error)
    elif name is not None:
        known = {name: known[name]}
    order = [question.value for question in Question]
    ranks = {question: rank for rank, question in enumerate(order)}
    return dict(sorted(known.items(), key=lambda item: (ranks.get(item[1].question, len(order)), item[0])))


def say_one(words: Description) -> None:
    """Print everything known of one metric, a line a fact."""
    say(f"{words.name}: {words.title}")
    for fact, text in facts(words):
        say(f"  {fact:<10} {text}")


def facts(words: Description) -> Iterable[tuple[str, str]]:
    """Yield what is known of a metric beyond its title, empty facts left out."""
    known = {
        "answers": words.question, "shows": words.summary, "formula": words.formula,
        "unit": "dimensionless" if words.unit == "1" else words.unit, "per": words.keys,
        "undefined": words.undefined, "source": words.source, "cost": words.cost, "version": str(words.version),
    }  # fmt: skip
    yield from ((fact, text) for fact, text in known.items() if text)
    for line in words.references:
        level = f"{line.value:g}" + (f" to {line.upper:g}" if line.upper is not None else "")
        yield "line", f"{line.label}: {level} ({line.source})"


def table(found: Mapping[str, Description]) -> Table:
    """Return the catalogue as a table: name, title, unit, cost, and the question it answers."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("metric", "what it is", "per", "cost", "answers"):
        shown.add_column(header, overflow="fold")
    for words in found.values():
        shown.add_row(*(cell(text) for text in (words.name, words.title, words.keys, words.cost, words.question)))
    return shown


def page(found: Mapping[str, Description]) -> str:
    """Return the catalogue as Markdown: a section a question, a heading a metric."""
    parts, question = [HEADER], None
    for words in found.values():
        if words.question != question:
            question = words.question
            parts.append(f"## {question}\n")
        parts.append(f"### `{words.name}`\n\n**{words.title}.** {words.summary}\n")
        parts.append("\n".join(f"- {fact}: {_markdown(fact, text)}" for fact, text in facts(words)
                               if fact not in ("answers", "shows")) + "\n")  # fmt: skip
    return "\n".join(parts)


def _markdown(fact: str, text: str) -> str:
    return f"$`{text}`$" if fact == "formula" else text


COMMANDS = (
    (metrics, example("trainvitals metrics", "trainvitals metrics hessian.top", "trainvitals metrics nc --json")),
)
