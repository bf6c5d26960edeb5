"""The verdicts against runs whose faults are known: recall, false alarms, location, lead time, beside naive rules.

    python benchmarks/verdicts.py                    # generate what is not there yet, evaluate, report
    python benchmarks/verdicts.py generate --jobs 2  # train the bank: about a quarter of an hour on two quiet cores
    python benchmarks/verdicts.py evaluate --half thresholds --runs   # run by run, for setting thresholds
    python benchmarks/verdicts.py report             # both halves, to results/verdicts.md
    python benchmarks/verdicts.py --quick            # one small run of each kind, nothing saved

A run that lies in the folder already is not trained again. Thresholds are set by looking at the half
`thresholds`; of the half `report` only the sums are printed.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import pkgutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import verdict_bank
from report import RESULTS, machine
from verdict_bank.evaluation import Findings, evaluate
from verdict_bank.report import report
from verdict_bank.setting import FIRED, FOR_REPORT, FOR_THRESHOLDS, Setting, Truth
from verdict_bank.training import Entry, train

FOLDER = Path(__file__).parent / ".bank"
QUICK = (
    "mixture-gd",
    "mixture-overlapping-wide",
    "over-mixture-logs",
    "large-adam",
    "small-regression",
    "poisoned-mlp",
)


def settings() -> list[Setting]:
    """Return every setting of the bank, in the order of the names.

    Raises:
        ValueError: if two settings have one name, or a seed stands in both halves.
    """
    found: dict[str, Setting] = {}
    for info in pkgutil.iter_modules(verdict_bank.__path__, "verdict_bank."):
        for setting in getattr(importlib.import_module(info.name), "SETTINGS", []):
            if found.setdefault(setting.name, setting) is not setting:
                raise ValueError(f"expected one setting per name, got two named {setting.name!r} in the bank")
    return [found[name] for name in sorted(found)]


def _entry_path(folder: Path, setting: Setting, seed: int) -> Path:
    return folder / "entries" / f"{setting.name}-s{seed}.json"


def _make(task: tuple[str, int, str]) -> str:
    name, seed, folder_name = task
    torch.set_num_threads(1)
    folder = Path(folder_name)
    setting = next(s for s in settings() if s.name == name)
    started = time.perf_counter()
    entry = train(setting, seed, folder / "runs")
    entry = replace(entry, seconds=round(time.perf_counter() - started, 2))
    path = _entry_path(folder, setting, seed)
    draft = path.with_suffix(".part")
    draft.write_text(entry.to_json())
    os.replace(draft, path)
    return f"{name}-s{seed}: {entry.seconds:.1f} s, {sorted(entry.labels) or 'nothing'}"


def generate(folder: Path, jobs: int, wanted: Sequence[str] = ()) -> None:
    """Train the runs that are not there yet, each in a process of one thread.

    Args:
        folder: of the bank.
        jobs: processes at once.
        wanted: names of settings, or beginnings of names; all if empty.
    """
    (folder / "entries").mkdir(parents=True, exist_ok=True)
    tasks = [
        (s.name, seed, str(folder))
        for s in sorted(settings(), key=lambda s: s.half == FOR_REPORT)
        for seed in s.seeds
        if not _entry_path(folder, s, seed).exists() and (not wanted or s.name.startswith(tuple(wanted)))
    ]
    if not tasks:
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for i, line in enumerate(pool.imap_unordered(_safely, tasks), start=1):
            print(f"[{i}/{len(tasks)}] {line}", flush=True)


def relabel(folder: Path) -> None:
    """Compute the labels of all runs anew from the truth that was measured beside them, as after a better labelling."""
    by_name = {s.name: s for s in settings()}
    for path in sorted((folder / "entries").glob("*.json")):
        entry = Entry.from_json(path.read_text())
        setting = by_name.get(entry.setting)
        if setting is None or entry.seed not in setting.seeds:
            path.unlink()  # no longer in the bank
            continue
        torch.manual_seed(entry.seed)
        labels = setting.make(entry.seed).label(Truth(dict(entry.truth)))
        marks = {"quiet": tuple(sorted(setting.quiet)), "unjudged": tuple(sorted(setting.unjudged))}
        path.write_text(
            replace(entry, labels=labels, half=setting.half, is_healthy=setting.is_healthy, **marks).to_json()
        )


def _safely(task: tuple[str, int, str]) -> str:
    try:
        return _make(task)
    except Exception as error:
        return f"{task[0]}-s{task[1]}: FAILED with {type(error).__name__}: {error}"


def load(folder: Path, half: str | None = None) -> list[Entry]:
    """Return the entries of a folder, of one half or of both."""
    entries = [Entry.from_json(path.read_text()) for path in sorted((folder / "entries").glob("*.json"))]
    return [entry for entry in entries if half in (None, entry.half)]


def main() -> None:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["all", "generate", "relabel", "evaluate", "report"], default="all")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the bank (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    parser.add_argument("--only", nargs="*", default=[], help="settings whose name begins with one of these")
    parser.add_argument("--half", choices=[FOR_THRESHOLDS, FOR_REPORT], default=FOR_THRESHOLDS)
    parser.add_argument("--runs", action="store_true", help="print each run (half thresholds only)")
    parser.add_argument("--quick", action="store_true", help="a few small runs in a folder of their own, nothing saved")
    parser.add_argument("--no-save", action="store_true", help="print the report, write no file")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.folder, arguments.only = arguments.folder / "quick", QUICK
    if arguments.what in ("all", "generate"):
        generate(arguments.folder, arguments.jobs, arguments.only)
    if arguments.what == "relabel":
        relabel(arguments.folder)
    if arguments.what in ("all", "evaluate", "report"):
        _judge(arguments)


def _judge(arguments: argparse.Namespace) -> None:
    half = arguments.half if arguments.what == "evaluate" else None
    entries = load(arguments.folder, half)
    with multiprocessing.get_context("spawn").Pool(arguments.jobs) as pool:
        findings = evaluate(entries, pool)
    if arguments.runs and half == FOR_THRESHOLDS:
        print_runs(entries, findings)
    text = report(entries, findings, machine())
    print(text)
    if arguments.what != "evaluate" and not arguments.no_save and not arguments.quick:
        (RESULTS / "verdicts.md").write_text(text)


def print_runs(entries: Sequence[Entry], findings: Mapping[str, Findings]) -> None:
    """Print each run's conditions that are labelled, that fire, or that should have stayed quiet."""
    for entry in entries:
        for condition, answer in findings[entry.path].ours.items():
            expected = entry.labels.get(condition)
            if expected is None and answer.state not in FIRED:
                continue
            should = "nothing" if expected is None else f"{'/'.join(sorted(expected.states))} within {expected.onset}"
            judged = "" if expected or condition in entry.quiet or entry.is_healthy else " (not judged)"
            print(f"{entry.setting}-s{entry.seed} {condition}: {answer.state} since {answer.since}, {should}{judged}")


if __name__ == "__main__":
    main()
