"""`trainvitals analyze`: the diagnosis of a run from its checkpoints, when it is over."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from trainvitals.commands.runs import Store
from trainvitals.commands.summary import table
from trainvitals.commands.terminal import console, example, failed, say, warn, wrong_usage

_FUNCTION = (
    "as package.module:function, imported from this folder or the environment. Importing runs the module's code."
)


def analyze(
    checkpoints: Annotated[list[str], typer.Argument(help="Files, folders of checkpoints, or patterns.")],
    build: Annotated[str | None, typer.Option(
        metavar="MODULE:FUNCTION", help=f"Makes the model, without arguments, {_FUNCTION}")] = None,
    data: Annotated[str | None, typer.Option(
        metavar="MODULE:FUNCTION", help="Returns the train probe, or a mapping with 'train' and, if you like, "
        f"'heldout', 'loss' and 'forward', {_FUNCTION}")] = None,
    loss: Annotated[str | None, typer.Option(
        metavar="MODULE:FUNCTION", help="loss(outputs, targets), as torch.nn.functional:cross_entropy.")] = None,
    forward: Annotated[str | None, typer.Option(
        metavar="MODULE:FUNCTION", help="forward(model, batch) -> (outputs, loss), in place of --loss.")] = None,
    optimizer: Annotated[str | None, typer.Option(
        metavar="MODULE:FUNCTION", help="optimizer(model), where a checkpoint does not tell which one it was.")] = None,
    what: Annotated[list[str] | None, typer.Option(
        help="A preset, a metric or a group; repeat it for more. 'path' is the trajectory.")] = None,
    against: Annotated[list[str] | None, typer.Option(
        help="Checkpoints of a second run to compare with, at equal steps; repeat it for more.")] = None,
    out: Annotated[str, typer.Option(metavar="RUN", help="Name of the run that is written.")] = "checkpoints",
    store: Store = "runs/",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by cores and memory if left out.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="Address of a Dask scheduler, tcp://host:port.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew in place of going on.")] = False,
    mode: Annotated[str, typer.Option(help="eval or train: BatchNorm and dropout.")] = "eval",
    seed: Annotated[int, typer.Option(min=0, help="Of random vectors.")] = 0,
) -> None:
    """Measure checkpoints of a run that is over, and write them as a run.

    Without --build and --data, only weights are measured: norms, spectra, distances, ranks. Checkpoints are read as
    tensors and never executed; --build, --data and the other functions are your own code and are. An analysis that
    was stopped goes on when the same command is given again.
    """
    specs = {"build": build, "loss": loss, "forward": forward, "optimizer": optimizer}
    functions = {name: _imported(name, spec) for name, spec in specs.items() if spec}
    probes = _probes(_imported("data", data)) if data else {}
    if clash := sorted(set(functions) & set(probes)):
        wrong_usage(f"expected each of {', '.join(clash)} once, got it from --data and from an option; leave one out")
    import trainvitals as tv
    from trainvitals.checkpoints.progress_bar import progress_bar

    with progress_bar() as progress, contextlib.ExitStack() as stack:
        try:
            run = stack.enter_context(tv.analyze(
                checkpoints, **functions, **probes, what=what or ["default"], against=against, store=store, name=out,
                resume=not fresh, workers=workers, scheduler=scheduler, mode=mode, seed=seed, progress=progress,
            ))  # fmt: skip
        except KeyboardInterrupt:
            failed("stopped before the end; what is done is kept, and the same command goes on")
        events = run.events()
        shown = table(run.latest(), run.descriptions)
        words = f"run {run.id}, in {run.path}"
    for reason in events.loc[events["kind"].isin(["checkpoint", "warning"]), "message"]:
        warn(f"left out or limited: {reason}")
    console().print(shown)
    say(words)


def _imported(option: str, spec: str) -> Any:
    """Return the function that a module has under a name."""
    module, colon, name = spec.partition(":")
    if not (module and colon and name):
        wrong_usage(f"expected MODULE:FUNCTION, got {spec!r} in --{option}; write my_project.models:build")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:
        failed(f"expected a function at {spec!r}, got {type(error).__name__}: {error} in --{option}; run the command "
               "where `python -c 'import " + module + "'` works")  # fmt: skip
    return found


def _probes(function: Any) -> dict[str, Any]:
    """Return what the user's function gives, by the names of `tv.analyze`."""
    given = function()
    if not isinstance(given, Mapping) or "train" not in given:
        return {"batch": given}
    known = {"train", "heldout", "loss", "forward", "optimizer"}
    if unknown := sorted(set(map(str, given)) - known):
        wrong_usage(f"expected the keys {', '.join(sorted(known))}, got {', '.join(unknown)} from --data; leave it out")
    return {"batch" if key == "train" else str(key): value for key, value in given.items()}


COMMANDS = (
    (analyze, example(
        "trainvitals analyze checkpoints/",
        "trainvitals analyze 'out/step_*.pt' --build my_project.models:build --data my_project.data:probes "
        "--loss torch.nn.functional:cross_entropy --what full",
        "trainvitals analyze out/ --build my_project.models:build --data my_project.data:probes --what path",
    )),
)  # fmt: skip
