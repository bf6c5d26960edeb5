"""`trainvitals export` and `import`: runs out to other formats and in from other programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from trainvitals.commands.runs import RunName, Store
from trainvitals.commands.terminal import example, one_line_errors, say, warn, wrong_usage

Into = Annotated[str, typer.Option("--store", help="Folder that receives the runs.")]


def export(
    run: RunName,
    to: Annotated[
        str, typer.Option("--to", metavar="FILE/FOLDER", help="x.html, x.parquet, x.csv, x.jsonl, or a folder.")
    ] = "",
    html: Annotated[
        str, typer.Option("--html", metavar="FILE", help="A report in one file: opens offline, prints to PDF.")
    ] = "",
    store: Store = "runs/",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Write a run to a report in one HTML file, a table that other programs read, or a folder that opens elsewhere."""
    if bool(to) == bool(html):
        wrong_usage("expected --html FILE or --to FILE/FOLDER, one of the two; try --html report.html")
    from trainvitals.exchange.export_archive import export_archive
    from trainvitals.exchange.export_table import WRITERS, export_table
    from trainvitals.run import UnknownRunError, open_run

    try:
        found = open_run(run, store)
    except UnknownRunError as error:
        wrong_usage(error)
    ending = "html" if html else Path(to).suffix.removeprefix(".").lower()
    with found:
        if ending == "html":
            from trainvitals.views.report import write_report

            path = write_report(found, html or to, overwrite=overwrite)
            say(f"report in {path}: {path.stat().st_size / 1e6:.1f} MB; it opens offline, and prints to PDF")
        elif ending in WRITERS:
            say(f"{export_table(found, to, overwrite=overwrite)} rows in {to}")
        elif ending and not Path(to).is_dir():
            wrong_usage(f"expected a file that ends in .html, .{', .'.join(WRITERS)} or a folder, got --to {to}")
        else:
            say(f"archive in {export_archive(found, to, store)}; open it with tv.open_run({to!r})")


importing = typer.Typer(
    name="import", help="Record runs of other programs as runs of a store.", no_args_is_help=True, rich_markup_mode=None
)


def tensorboard(
    path: Annotated[str, typer.Argument(help="Folder of event files, as for tensorboard --logdir; or one file.")],
    store: Into = "runs/",
) -> None:
    """Import the scalars and histograms of TensorBoard's event files, with their wall times."""
    from trainvitals.exchange.import_tensorboard import find_tensorboard

    _record(find_tensorboard(path), store)


def wandb(
    path: Annotated[str, typer.Argument(help="Folder of offline runs (wandb/), one of them, or a .wandb file.")],
    store: Into = "runs/",
) -> None:
    """Import the metrics, settings, tags and notes of Weights & Biases' offline runs."""
    from trainvitals.exchange.import_wandb import find_wandb

    _record(find_wandb(path), store)


def mlflow(
    path: Annotated[str, typer.Argument(help="The SQLite file of a tracking store, often mlflow.db.")],
    store: Into = "runs/",
) -> None:
    """Import the metrics, parameters, tags and notes of MLflow's SQLite tracking store."""
    from trainvitals.exchange.import_mlflow import find_mlflow

    _record(find_mlflow(path), store)


def _record(found: Sequence[Any], store: str) -> None:
    from trainvitals.exchange.recording import record

    for one in found:
        done = record(one, store)
        say(f"{done.id}: {done.num_points} points from {one.name}")
        for what, count in done.left_out.items():
            warn(f"left out: {count} of kind {what}")
    if not found:
        warn("no runs were found")


importing.command("tensorboard", epilog=example("trainvitals import tensorboard logs/"))(one_line_errors(tensorboard))
importing.command("wandb", epilog=example("trainvitals import wandb wandb/"))(one_line_errors(wandb))
importing.command("mlflow", epilog=example("trainvitals import mlflow mlflow.db"))(one_line_errors(mlflow))

GROUPS = (importing,)
COMMANDS = (
    (export, example("trainvitals export latest --html report.html", "trainvitals export latest --to run.parquet",
                     "trainvitals export latest --to shared/run")),
)
