"""`docs/phenomena.md`: what each sample claims, in how many seeds it was seen, how large, and what is not built."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from trainvitals.sample_runs.catalogue import Sample, samples

# The phenomena that the project set out to show, and the sample that does; None: not built yet.
WANTED: dict[str, str | None] = {
    "Edge of stability": "edge-of-stability",
    "Warm-up, clipping or LayerNorm save a start of high curvature": "warmup-rescue",
    "A few samples with opposed gradients drive the loss at the edge": "opposing-signals",
    "Outliers of the Hessian spectrum follow the data, the bulk follows the size": None,
    "Sharpness-aware minimisation and label noise": None,
    "A rising loss can mean progress": "loss-misleads",
    "Clean labels first, wrong ones later; dropout delays it": "label-noise",
    "A network fits random labels": "random-labels",
    "Scores of the first epochs find mislabelled samples": "early-scores",
    "Overfitting leaks membership": "membership",
    "One step widens the gap by lr · tr Cov(g)/n": None,
    "Two denoisers on disjoint halves agree with enough data": None,
    "OUI orders weight decays early": "oui-weight-decay",
    "Before a norm layer, decay only sets the effective learning rate": "scale-invariant-weights",
    "Distance from the start grows like log t": "distance-log-t",
    "Gradients agree on real labels, early": "random-labels",
    "An easy feature starves the others": "gradient-starvation",
    "Class imbalance: the minority loss rises first": "class-imbalance",
    "Neural collapse, balanced": "neural-collapse",
    "Neural collapse, imbalanced": "imbalanced-collapse",
    "Label smoothing tightens clusters": "label-smoothing",
    "Plasticity loss": "plasticity-loss",
    "Stability gap after a switch of task": "stability-gap",
    "Grokking": "grokking",
    "Softmax collapse": "softmax-collapse",
    "Grokking of noisy XOR clusters": "xor-grokking",
    "Double descent": "double-descent",
    "Benign overfitting": "benign-overfitting",
    "Attention logits explode; qk-norm cures it": "attention-logits",
    "Gradients of Post-LN and Pre-LN transformers": "norm-placement",
    "Catastrophic overfitting of single-step adversarial training": None,
    "Loss barrier between independent networks": "loss-barrier",
    "Weight interpolation trades one domain against another": None,
    "Repeated data is worse than fresh data at equal updates": "data-repetition",
}

LEFT_OUT = """Left out, since they did not show in trials with small networks: early dropout that aligns the gradients
of mini-batches, and the distorted optimum of a single shuffle with BatchNorm."""

HEAD = """# Phenomena: what the sample runs show

Written by `make samples` from `docs/phenomena.json`, which holds every figure of every seed; do not edit.

Each sample is a short script in [sample_runs/](../sample_runs) that trains on a CPU with digits or made data, reads
its recorded runs through the public interface, and says whether the effect is there. A toy run shows that an effect is
visible; it does not replicate a paper. The effect is the mean over seeds, smallest and largest in brackets.
A sample whose effect was not there in every seed says so here; nothing else in the project relies on it. Seconds are
wall-clock for all runs of one seed, measurements included, on a 2-core machine that did much else: an idle one is
several times faster.

Most bounds in the claims stood before the runs. For neural-collapse, class-imbalance, stability-gap, loss-misleads,
benign-overfitting, norm-placement and scale-invariant-weights the recipe or a bound was changed after a look at one to
three of the seeds that are told here.

`trainvitals sample NAME` trains one, `trainvitals sample open NAME` shows its recorded runs.
"""


def markdown(outcomes: Mapping[str, Any]) -> str:
    """Return the document."""
    rows = [_row(each, outcomes.get(each.name)) for each in samples()]
    details = [_details(each, outcomes.get(each.name)) for each in samples()]
    table = ["| | sample | shown | effect | s |", "|---|---|---|---|---|", *rows]
    return "\n".join([HEAD, *table, "", *_not_built(), "", "## Each of them", "", "\n\n".join(details)]) + "\n"


def _row(each: Sample, entry: Mapping[str, Any] | None) -> str:
    link = f"[{each.name}](../sample_runs/{each.path.name})"
    if entry is None:
        return f"| {each.number} | {link}: {each.title} | not run yet | | |"
    effect = spread([seed["effect"] for seed in entry["seeds"]])
    seconds = statistics.median(seed["seconds"] for seed in entry["seeds"])
    return (f"| {each.number} | {link}: {each.title} | {_shown(entry)} | {entry['effect_is']}: {effect} "
            f"| {seconds:.0f} |")  # fmt: skip


def _shown(entry: Mapping[str, Any]) -> str:
    seeds = entry["seeds"]
    return f"{sum(seed['shown'] for seed in seeds)} of {len(seeds)} seeds"


def _details(each: Sample, entry: Mapping[str, Any] | None) -> str:
    claim = each.words["Claim"]
    lines = [f"### {each.name}", "", claim[:1].upper() + claim[1:], "", f"- formula: {each.words['Formula']}",
             f"- paper: {each.words['Paper']}", f"- look at: {each.words['Look at']}",
             f"- falsified by: {each.words['Falsified by']}"]  # fmt: skip
    if entry is not None:
        names = entry["seeds"][0]["figures"]
        measured = [f"{name} {spread([seed['figures'][name] for seed in entry['seeds']])}" for name in names]
        lines.append(f"- measured, shown in {_shown(entry)}: {'; '.join(measured)}")
    return "\n".join(lines)


def spread(values: list[float | str]) -> str:
    """Return the mean of some numbers, and their range where they differ.

    >>> spread([1.0, 2.0]), spread([3.0, 3.0])
    ('1.5 (1 to 2)', '3')
    """
    numbers = [float(value) for value in values]
    low, high = min(numbers), max(numbers)
    mean = statistics.fmean(numbers)
    return _short(mean) if _short(low) == _short(high) else f"{_short(mean)} ({_short(low)} to {_short(high)})"


def _short(value: float) -> str:
    if abs(value) == float("inf"):
        return "never"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _not_built() -> list[str]:
    missing = [words for words, name in WANTED.items() if name is None]
    there = len(WANTED) - len(missing)
    return [*_built(there, missing), "", LEFT_OUT]


def _built(there: int, missing: list[str]) -> list[str]:
    if not missing:
        return [f"All {there} phenomena on the project's list are built."]
    return [f"Built are {there} of the {len(WANTED)} phenomena on the project's list. Not built yet:", "",
            *(f"- {words}" for words in missing)]  # fmt: skip
