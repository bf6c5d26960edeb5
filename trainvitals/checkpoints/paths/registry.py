"""Which metrics of paths there are, and what of them was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from trainvitals.checkpoints.finding import Checkpoint
from trainvitals.checkpoints.paths.against import Against
from trainvitals.checkpoints.paths.barrier import Barrier
from trainvitals.checkpoints.paths.base import PathMetric
from trainvitals.checkpoints.paths.geometry import Geometry
from trainvitals.checkpoints.paths.plane import PathLandscape
from trainvitals.checkpoints.paths.similarity import Similarity
from trainvitals.checkpoints.paths.soup import Soup
from trainvitals.schema import Description

GROUP = "path"
GEOMETRY = ("path.pca", "path.distance", "path.angle")
OF_WEIGHTS = GEOMETRY  # what needs no model
NAMES = (*GEOMETRY, "path.barrier", "path.soup", "path.cka", "path.landscape")  # "path" stands for all of these
_OPTIONS = {"path.pca": ("num_components",), "path.barrier": ("num_points",), "path.soup": ("num",),
            "path.landscape": ("num_points",), "path.against": ("num_points",)}  # fmt: skip


def is_of_paths(name: Any) -> bool:
    """Tell a metric of paths, or their group, from a diagnostic."""
    return isinstance(name, str) and (name == GROUP or name.startswith(f"{GROUP}."))


def chosen(names: Iterable[str], *, has_model: bool) -> frozenset[str]:
    """Return the metrics of paths that names and the group stand for; of weights alone, those they can serve.

    Raises:
        ValueError: for an unknown name, or one that needs a model where there is none.
    """
    found: set[str] = set()
    for name in names:
        if name == GROUP:
            found |= set(NAMES if has_model else OF_WEIGHTS)
            continue
        base = next((known for known in NAMES if name == known or name.startswith(f"{known}.")), None)
        if base is None:
            near = get_close_matches(name, NAMES, 3, 0.4)
            raise ValueError(
                f"expected a metric of paths, got {name!r}; " + (f"did you mean {' or '.join(near)}?" if near
                else f"they are {', '.join(NAMES)}"))  # fmt: skip
        if not has_model and base not in OF_WEIGHTS:
            raise ValueError(
                f"expected build= and batch= for {base!r}, got weights alone in trainvitals.analyze; pass both, or "
                f"ask for {', '.join(OF_WEIGHTS)}"
            )
        found.add(base)
    return frozenset(found)


def made(
    wanted: frozenset[str], options: Mapping[str, Mapping[str, Any]], others: Sequence[Checkpoint] | None
) -> list[PathMetric]:
    """Return the metrics, each before those that rest on it.

    Raises:
        ValueError: for options that a metric does not have, or that are not possible.
    """
    for name, given in options.items():
        for option in given:
            if option not in _OPTIONS.get(name, ()):
                raise ValueError(
                    f"expected options of {name!r} among {list(_OPTIONS.get(name, ())) or 'none'}, got {option!r} in "
                    f"options={{{name!r}: ...}}; leave it out"
                )
    metrics: list[PathMetric] = []
    needs_plane = "path.landscape" in wanted
    if wanted & set(GEOMETRY) or needs_plane:
        recorded = wanted | ({"path.pca"} if needs_plane else set())
        geometry = Geometry(recorded, is_needed=needs_plane, **options.get("path.pca", {}))
        metrics.append(geometry)
        if needs_plane:
            metrics.append(PathLandscape(geometry, **options.get("path.landscape", {})))
    for name, cls in (("path.barrier", Barrier), ("path.soup", Soup), ("path.cka", Similarity)):
        if name in wanted:
            metrics.append(cls(**options.get(name, {})))
    if others is not None:
        metrics.append(Against(others, **options.get("path.against", {})))
    return metrics


def descriptions_of(metrics: Iterable[PathMetric], wanted: frozenset[str]) -> dict[str, Description]:
    """Return the descriptions of what metrics will record."""
    found = {name: words for metric in metrics for name, words in metric.descriptions().items()}
    unasked = tuple(f"{name}." for name in GEOMETRY if name not in wanted
                    and not (name == "path.pca" and "path.landscape" in wanted))  # fmt: skip
    return {name: words for name, words in found.items() if not unasked or not name.startswith(unasked)}
