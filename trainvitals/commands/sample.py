"""`trainvitals sample`: the papers' phenomena as short runs, trained here or looked at as they were recorded."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from trainvitals.commands.dashboard_server import serving, stop_on_terminate
from trainvitals.commands.runs import Store
from trainvitals.commands.terminal import cell, console, example, say, wrong_usage
from trainvitals.commands.ui import Port, pick_port, wait_for_the_end
from trainvitals.sample_runs.catalogue import Sample, samples
from trainvitals.sample_runs.catalogue import sample as find

LOCAL = "127.0.0.1"


def sample(
    what: Annotated[list[str], typer.Argument(help="A sample to train; or list; or open, with samples to look at.")],
    seed: Annotated[int, typer.Option(min=0, help="Of data, weights and order.")] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE: one run with this changed, in place of those that are compared."),
    ] = None,
    store: Store = "runs/",
    port: Port = None,
) -> None:
    """Train a sample run, list them all, or open recorded ones in the browser."""
    first, *others = what
    if first == "list":
        _list()
    elif first == "open":
        _open([find(name) for name in others] or [each for each in samples() if each.recordings], port)
    elif others:
        wrong_usage(f"expected one sample to train, got {' '.join(what)}; train them one after the other")
    elif set_:
        _train_changed(find(first), seed, set_, store)
    else:
        _train(find(first), seed, store)


def _list() -> None:
    from rich.table import Table

    table = Table("", "sample", "what it shows", box=None, pad_edge=False)
    for each in samples():
        table.add_row(cell(f"{each.number:02}"), cell(each.name), cell(each.title))
    console().print(table)


def _open(chosen: list[Sample], port: int | None) -> None:
    """Serve copies of the recorded runs; they are gone when the dashboard ends."""
    from trainvitals.sample_runs.recordings import unpack

    stop_on_terminate()
    with tempfile.TemporaryDirectory(prefix="trainvitals-samples-") as folder:
        num_runs = len(unpack(chosen, Path(folder)))
        with serving(folder, LOCAL, pick_port(LOCAL, port)) as server:
            say(f"Dashboard: {server.address}  with {num_runs} recorded runs (Ctrl-C stops it)")
            wait_for_the_end(server.process.poll)


def _train(chosen: Sample, seed: int, store: str) -> None:
    from trainvitals.sample_runs.running import lines_of, run_sample

    say(chosen.title)
    outcome = run_sample(chosen, seed, store, lambda arm: say(f"training {arm}"))
    for line in lines_of(outcome):
        say(line)
    say(f"`trainvitals ui --store {store}` shows the runs. {chosen.words['Look at']}")


def _train_changed(chosen: Sample, seed: int, settings: list[str], store: str) -> None:
    changed = chosen.changed({key: value for key, _, value in (text.partition("=") for text in settings)})
    say(f"{chosen.title} With {', '.join(f'{key}={value}' for key, value in changed.items())}.")
    run = chosen.train(seed, **changed, store=store, name=chosen.name)
    say(f"run {run.id} ({run.status}), in {run.path}")


COMMANDS = (
    (
        sample,
        example("trainvitals sample list", "trainvitals sample grokking --seed 1", "trainvitals sample open grokking",
                "trainvitals sample edge-of-stability --set learning_rate=0.3"),
    ),
)  # fmt: skip
