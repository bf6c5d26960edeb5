"""`trainvitals demo`: a model that overfits within a minute, watched live."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from trainvitals.commands.dashboard_server import serving, stop_on_terminate
from trainvitals.commands.runs import Store
from trainvitals.commands.summary import table
from trainvitals.commands.terminal import console, example, say
from trainvitals.commands.ui import Port, pick_port, wait_for_the_end

if TYPE_CHECKING:
    from trainvitals.demo import Recipe

PLAIN_LINES = 10  # where there is no terminal: a line for every tenth of the work
LOCAL = "127.0.0.1"


def demo(
    headless: Annotated[bool, typer.Option("--headless", help="Train without the dashboard; print a summary.")] = False,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps; 1,200 if left out.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the split, the wrong labels, the weights and the order.")] = 0,
    store: Store = "runs/",
    port: Port = None,
) -> None:
    """Train a small CNN on digits with wrong labels and watch it overfit, live in the browser."""
    from trainvitals.demo import Recipe  # torch

    recipe = Recipe(seed=seed) if steps is None else Recipe(seed=seed, num_steps=steps)
    if headless:
        _print_summary(_train(recipe, store), store)
        return
    stop_on_terminate()
    with serving(store, LOCAL, pick_port(LOCAL, port)) as server:
        say(f"Dashboard: {server.address}  (Ctrl-C stops it)")
        try:
            _print_summary(_train(recipe, store), store)
        except KeyboardInterrupt:
            say("Stopped before the end; the run is kept.")
            return
        say(f"Done. The dashboard goes on at {server.address} until Ctrl-C.")
        wait_for_the_end(server.process.poll)


def _train(recipe: Recipe, store: str) -> str:
    import torch

    from trainvitals.demo import train

    torch.set_num_threads(1)  # batches this small are slower on two; six times slower where the cores are shared
    started = time.perf_counter()
    with _progress(recipe.num_steps) as advance:
        run_id = train(recipe, store, advance)
    say(f"Trained {recipe.num_steps} steps in {time.perf_counter() - started:.0f} s.")
    return run_id


@contextlib.contextmanager
def _progress(num_steps: int) -> Iterator[Callable[[int, float], None]]:
    """Yield what to call after each step: a bar moves on a terminal, lines are printed elsewhere."""
    if not sys.stdout.isatty():
        yield lambda step, loss: _say_sometimes(step, num_steps, loss)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
               TextColumn("loss {task.fields[loss]:.3f}"))  # fmt: skip
    with Progress(*columns, console=console()) as bar:
        task = bar.add_task("training", total=num_steps, loss=float("nan"))
        yield lambda step, loss: bar.update(task, completed=step, loss=loss)


def _say_sometimes(step: int, num_steps: int, loss: float) -> None:
    if step % max(num_steps // PLAIN_LINES, 1) == 0 or step == num_steps:
        say(f"step {step}/{num_steps}  loss {loss:.3f}")


def _print_summary(run_id: str, store: str) -> None:
    from trainvitals.run import open_run

    with open_run(run_id, store) as run:
        console().print(table(run.latest(), run.descriptions))
        say(f"run {run.id} ({run.status}), in {run.path}")


COMMANDS = ((demo, example("trainvitals demo", "trainvitals demo --headless --steps 200 --store /tmp/runs")),)
