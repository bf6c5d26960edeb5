"""Which diagnostics exist: found in this folder and in installed packages, never listed by hand."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

import trainvitals.diagnostics
from trainvitals.diagnostics.base import Diagnostic, Tier, is_final

ENTRY_POINT_GROUP = "trainvitals.diagnostics"
PRESETS: dict[str, tuple[Tier, ...]] = {
    "light": (Tier.LIGHT,),
    "default": (Tier.LIGHT, Tier.DEFAULT),
    "full": (Tier.LIGHT, Tier.DEFAULT, Tier.FULL),
}


@cache
def registered() -> dict[str, type[Diagnostic]]:
    """Return every diagnostic by name, in the order of the names.

    Modules of this folder come first, then the entry points of the group `trainvitals.diagnostics`,
    each of which names a module or a class.

    Raises:
        ImportError: if two diagnostics give the same metric name, with both modules' names.
    """
    found: dict[str, type[Diagnostic]] = {}
    owners: dict[str, type[Diagnostic]] = {}
    for cls in _discover():
        for metric in {cls.name, *cls.descriptions()}:
            other = owners.setdefault(metric, cls)
            if other is not cls:
                raise ImportError(
                    f"expected one diagnostic per metric name, got {metric!r} from both "
                    f"{other.__module__} and {cls.__module__}; rename one of them"
                )
        found[cls.name] = cls
    return dict(sorted(found.items()))


def _discover() -> Iterable[type[Diagnostic]]:
    for info in pkgutil.iter_modules(trainvitals.diagnostics.__path__, "trainvitals.diagnostics."):
        if not info.ispkg:
            yield from _final_classes(importlib.import_module(info.name))
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        loaded = entry.load()
        yield from _final_classes(loaded) if isinstance(loaded, ModuleType) else (loaded,)


def _final_classes(module: ModuleType) -> Iterable[type[Diagnostic]]:
    for _, cls in inspect.getmembers(module, inspect.isclass):
        if cls.__module__ == module.__name__ and issubclass(cls, Diagnostic) and is_final(cls):
            yield cls


def select(
    probes: str | Iterable[str] | Mapping[str, Mapping[str, Any]],
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Diagnostic]:
    """Return fresh diagnostics for a preset, for names and groups, or for a mapping name → options.

    A name is a diagnostic (`"hessian.top"`), a part of one (`"gap.loss"` gives all of `gap`), a group
    (`"hessian"`, `"nc"`), or a preset. Options of a group go to those of its members that know them.

    Raises:
        ValueError: if a name is none of these, with the nearest names; if an option is known to none of them.
    """
    _check_forms(probes, options)
    if isinstance(probes, Mapping):
        options = {**(options or {}), **probes}
    names = [probes] if isinstance(probes, str) else list(probes)
    chosen: dict[str, type[Diagnostic]] = {}
    for name in names:
        chosen.update({cls.name: cls for cls in matching(name)})
    settings: dict[str, dict[str, Any]] = {}
    for name, values in (options or {}).items():
        classes = [cls for cls in matching(name) if cls.name in chosen]
        if not classes:
            raise ValueError(
                f"expected options for metrics that are measured, got options for {name!r}; "
                f"measured are {', '.join(chosen)}: add {name!r} or leave its options out"
            )
        for cls in classes:
            settings.setdefault(cls.name, {}).update(_known_to(cls, classes, values))
    return [cls.configured(settings.get(name, {})) for name, cls in chosen.items()]


def _known_to(
    cls: type[Diagnostic], group: Sequence[type[Diagnostic]], values: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return those of a group's options that are for this member: what it knows, and what none knows, to be refused."""
    others = {option for member in group for option in member.option_names()} - set(cls.option_names())
    return {option: value for option, value in values.items() if option not in others}


def _check_forms(probes: Any, options: Any) -> None:
    """Refuse what is no way of writing metrics or options, before its contents are looked at."""
    if not isinstance(probes, Iterable):
        raise ValueError(
            f"expected a preset, names and groups, or a mapping name -> options of metrics, got {probes!r}; "
            "write 'default', ['oui', 'nc'] or {'hessian.top': {'k': 3}}"
        )
    for given in (options, probes if isinstance(probes, Mapping) else None):
        values = given.values() if isinstance(given, Mapping) else [] if given is None else [given]
        for wrong in (value for value in values if not isinstance(value, Mapping)):
            raise ValueError(
                f"expected options as a mapping by name, got {wrong!r} for metrics; "
                "write {'hessian.top': {'k': 3}}, or {'hessian.top': {}} for none"
            )


def matching(name: str) -> list[type[Diagnostic]]:
    """Return the diagnostics that a name, a part, a group or a preset stands for.

    Raises:
        ValueError: if there is none, with the nearest names.
    """
    known = registered()
    name = name if isinstance(name, str) else repr(name)
    if name in PRESETS:
        return [cls for cls in known.values() if cls.tier in PRESETS[name]]
    if name in known:
        return [known[name]]
    found = [
        cls
        for cls in known.values()
        if cls.group == name or cls.name.startswith(f"{name}.") or name in cls.descriptions()
    ]
    if found:
        return found
    words = sorted({*known, *PRESETS, *(cls.group for cls in known.values() if cls.group)})
    near = get_close_matches(name, words, 3, 0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else "`trainvitals metrics` lists all"
    raise ValueError(f"expected a metric, a group or a preset, got {name!r}; {hint}")


def described() -> dict[str, Any]:
    """Return the description of every metric by its full name."""
    return {name: words for cls in registered().values() for name, words in cls.descriptions().items()}
