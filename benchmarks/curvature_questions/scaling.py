"""What a product costs: over the number of products done, and over the number of parameters.

P parameters, m products.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from curvature_measuring import counted_flops, timed
from curvature_models import Recipe, Task, digit_batch, task, task_of
from curvature_plot import Panel, picture
from curvature_report import Section
from curvature_systems.curvlinops_system import operator_of
from torch import nn

COUNTS = (10, 20, 40, 60, 80, 100)
PARAMETERS = (1e4, 3e4, 1e5, 3e5, 1e6, 3e6, 1e7, 3e7)
FEW, MANY = 2, 8  # products: the difference in time is that of as many products, without what is done once
NUM_SAMPLES = 32
LARGE = 5e6  # P from which one run is long enough to time
LINEAR_FROM = 1e6  # below, a product is mostly the overhead of its calls
FLAT = 1.25  # largest ratio of a late product's price to an early one's


def run(quick: bool, repeats: int) -> Section:
    """Return both tables and the picture."""
    given = task("MLP" if quick else "CNN", quick=quick)
    counts = COUNTS[:3] if quick else COUNTS
    over_counts = _over_counts(given, counts, repeats)
    sizes = PARAMETERS[:3] if quick else PARAMETERS
    over_sizes = [_at_size(size, 1 if size > LARGE else 2) for size in sizes]
    slope = _slope([(s["parameters"], s["seconds"]) for s in over_sizes])
    ratio = over_counts[-1]["seconds"] / over_counts[0]["seconds"]
    flops_ratio = over_counts[-1]["flops"] / over_counts[0]["flops"]
    spread = [s["seconds"] / s["parameters"] for s in over_sizes if s["parameters"] >= LINEAR_FROM] or [1.0]
    summary = (
        f"On {given.label}, a product of a Lanczos run of {counts[-1]} costs {ratio:.2f} times as much time as one of "
        f"{counts[0]} and {flops_ratio:.2f} times the operations, reorthogonalisation included (goal: flat; "
        f"{'reached' if ratio <= FLAT else 'not reached'}, taken as at most {FLAT}). From {LINEAR_FROM:.0e} to "
        f"{sizes[-1]:.0e} parameters the time of a product grows as P^{slope:.2f}, and the time a parameter stays "
        f"within a factor {max(spread) / min(spread):.2f} (goal: linear)."
    )
    rows = [
        {"what": f"{given.label}, run of {c['products']}", "ms a product": f"{1e3 * c['seconds']:.3g}",
         "GFLOP a product": f"{c['flops'] / 1e9:.3g}"} for c in over_counts
    ] + [
        {"what": f"MLP, P = {s['parameters']:,}", "ms a product": f"{1e3 * s['seconds']:.3g}",
         "ns a parameter": f"{1e9 * s['seconds'] / s['parameters']:.3g}",
         "curvlinops, ms a product": f"{1e3 * s['curvlinops_seconds']:.3g}"} for s in over_sizes
    ]  # fmt: skip
    panels = [
        Panel(f"a product, {given.name}", "products done", "seconds a product",
              {"TrainVitals, orthogonalised": [(c["products"], c["seconds"]) for c in over_counts]}),
        Panel("a product, MLPs of growing width", "parameters", "seconds a product", {
            "TrainVitals, orthogonalised": [(s["parameters"], s["seconds"]) for s in over_sizes],
            "curvlinops, product alone": [(s["parameters"], s["curvlinops_seconds"]) for s in over_sizes],
        }),
    ]  # fmt: skip
    return Section("scaling", "What a product costs", summary, rows, NOTES,
                   {"counts": over_counts, "sizes": over_sizes}, picture(panels))  # fmt: skip


NOTES = [
    "Price of a step of `hessian.top` that is kept from settling: the product, reorthogonalisation in two passes and "
    "the small eigenproblem. A line is the difference to a run of two products, over the products between, each the "
    "least of all repeats: what is done once cancels.",
    f"MLPs of two hidden layers of equal width with random weights, {NUM_SAMPLES} digits. curvlinops: a product alone.",
]


def _run_of(given: Task, num_products: int) -> Callable[[], Any]:
    """Return a Lanczos run of exactly so many products: nothing settles at such a tolerance."""
    return lambda: given.measure("hessian.top", 0, k=1, tol=1e-14, max_iterations=num_products, verify=False)


def _over_counts(given: Task, counts: tuple[int, ...], repeats: int) -> list[dict[str, Any]]:
    seconds: dict[int, list[float]] = {count: [] for count in (FEW, *counts)}
    for _ in range(max(repeats, 2)):
        for count, found in seconds.items():
            found.append(timed(_run_of(given, count))[1])
    flops = {count: counted_flops(_run_of(given, count)) for count in seconds}
    return [{
        "products": count, "seconds": (min(seconds[count]) - min(seconds[FEW])) / (count - FEW),
        "flops": (flops[count] - flops[FEW]) / (count - FEW),
    } for count in counts]  # fmt: skip


def _at_size(num_parameters: float, repeats: int) -> dict[str, Any]:
    width = round((math.sqrt(76**2 + 4 * num_parameters) - 76) / 2)  # w² + 76 w + 10 ≈ P
    recipe = Recipe(lambda: _wide(width), digit_batch, NUM_SAMPLES, 0)
    torch.manual_seed(0)
    given = task_of("MLP", recipe, recipe.make())
    few, many = ([timed(_run_of(given, count))[1] for _ in range(repeats)] for count in (FEW, MANY))
    operator, v = operator_of(given), torch.ones(given.num_parameters)
    operator @ v  # the first call traces
    return {
        "parameters": given.num_parameters, "seconds": (min(many) - min(few)) / (MANY - FEW),
        "curvlinops_seconds": min(timed(lambda: operator @ v)[1] for _ in range(repeats + 1)),
    }  # fmt: skip


def _wide(width: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(),
                         nn.Linear(width, 10))  # fmt: skip


def _slope(points: list[tuple[float, float]]) -> float:
    chosen = [p for p in points if p[0] >= LINEAR_FROM] or points
    x, y = np.log([p[0] for p in chosen]), np.log([p[1] for p in chosen])
    return float(np.polyfit(x, y, 1)[0])
