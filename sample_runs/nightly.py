"""Train every sample over its seeds, keep what came of it, and write `docs/phenomena.md` from that: `make samples`.

Outcomes are kept in `docs/phenomena.json`, one entry a sample, so that samples may be run one at a time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
from typing import Any

from trainvitals.sample_runs.catalogue import FOLDER, Sample, sample, samples
from trainvitals.sample_runs.packing import pack
from trainvitals.sample_runs.running import Outcome, lines_of, run_sample
from trainvitals.sample_runs.table import markdown

DOCS = FOLDER.parent / "docs"
OUTCOMES = DOCS / "phenomena.json"
TABLE = DOCS / "phenomena.md"
DIGITS = 4  # of a figure; the rest differs between machines


def outcomes() -> dict[str, Any]:
    """Return what has been kept, by the name of the sample."""
    return json.loads(OUTCOMES.read_text(encoding="utf-8")) if OUTCOMES.exists() else {}


def keep(name: str, entry: dict[str, Any]) -> None:
    """Write a sample's outcomes over its earlier ones, and the document anew."""
    known = {each.name for each in samples()}
    kept = {key: value for key, value in sorted((outcomes() | {name: entry}).items()) if key in known}
    OUTCOMES.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    TABLE.write_text(markdown(kept), encoding="utf-8")


def run(chosen: Sample, num_seeds: int | None, record: bool) -> dict[str, Any]:
    """Train a sample over its seeds; with `record`, the runs of seed 0 become those that are shipped."""
    seeds = []
    claim = None
    for seed in range(num_seeds or chosen.num_seeds):
        with tempfile.TemporaryDirectory() as store:
            done = run_sample(chosen, seed, store)
            claim = done.claim
            print("\n".join(lines_of(done)[: -len(done.runs)]), flush=True)
            if record and seed == 0:
                for arm, made in done.runs.items():
                    print(f"  recorded {arm}: {pack(chosen, arm, made).stat().st_size / 1024:.0f} KiB")
            seeds.append(_entry(done))
    assert claim is not None
    return {"effect_is": claim.effect_is, "seeds": seeds}


def _entry(done: Outcome) -> dict[str, Any]:
    figures = {name: _rounded(value) for name, value in done.claim.figures.items()}
    return {"seed": done.seed, "shown": bool(done.claim.shown), "effect": _rounded(done.claim.effect),
            "seconds": round(done.seconds, 1), "figures": figures}  # fmt: skip


def _rounded(value: float) -> float | str:
    number = float(f"{float(value):.{DIGITS}g}")
    return number if abs(number) < float("inf") else str(number)  # JSON has no infinity


def main() -> None:
    """Run what is asked for, one after the other; a sample that fails does not keep the others from running."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="samples; all if left out")
    parser.add_argument("--seeds", type=int, help="how many; each sample's own number if left out")
    parser.add_argument("--record", action="store_true", help="keep the runs of seed 0 as the recorded ones")
    parser.add_argument("--table-only", action="store_true", help="write the document anew and train nothing")
    given = parser.parse_args()
    if given.table_only:
        TABLE.write_text(markdown(outcomes()), encoding="utf-8")
        return
    failed = []
    for chosen in [sample(name) for name in given.names] or samples():
        print(f"== {chosen.name}", flush=True)
        try:
            keep(chosen.name, run(chosen, given.seeds, given.record))
        except Exception as error:
            print(f"  failed: {type(error).__name__}: {error}", flush=True)
            failed.append(chosen.name)
    with contextlib.suppress(statistics.StatisticsError):
        seconds = [seed["seconds"] for entry in outcomes().values() for seed in entry["seeds"]]
        print(f"median of {statistics.median(seconds):.0f} s a seed, {sum(seconds) / 60:.0f} min for all that is kept")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
