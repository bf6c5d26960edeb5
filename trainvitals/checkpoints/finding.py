"""Which checkpoints there are, and at which step each was saved."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainvitals.checkpoints.errors import CheckpointError
from trainvitals.checkpoints.loaders import distributed, format_of, hugging_face, load

_MAX_DEPTH = 3
_BESIDE = re.compile(  # files of a checkpoint that hold no weights of the model
    r"^(optimizer|optim|scheduler|scaler|training_args|rng_state|random_states|sampler|dl_state|custom_checkpoint)"
)
_BY_STEP = re.compile(r"(?:^|[^a-z])(?:global_?)?(?:steps?|iter(?:ation)?s?|updates?)[-_=]?(\d{1,18})(?!\d)", re.I)
_BY_CHECKPOINT = re.compile(r"(?:^|[^a-z])(?:checkpoint|ckpt|chkpt|cp)[-_=]?(\d{1,18})(?!\d)", re.I)
_BY_EPOCH = re.compile(r"(?:^|[^a-z])ep(?:och)?s?[-_=]?(\d{1,18})(?!\d)", re.I)
_BY_NUMBER = re.compile(r"(?:^|[-_=.])(\d{1,18})$")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk, and where it stands in its run."""

    path: Path
    step: int
    label: str  # its name, short


@dataclass(frozen=True)
class Problem:
    """A checkpoint that is left out, and why."""

    label: str
    reason: str
    step: int = 0


@dataclass(frozen=True)
class Found:
    """The checkpoints in order, what their axis counts, and those that are left out."""

    checkpoints: tuple[Checkpoint, ...]
    unit: str  # "step", "epoch" or "place": what `Checkpoint.step` counts
    problems: tuple[Problem, ...] = ()


def find(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> Found:
    """Return the checkpoints that paths stand for, ordered by step.

    A path is a checkpoint (a file, or a folder of one), a folder of checkpoints, or a pattern such as
    "out/step_*.pt". The step is taken from the name if it says step or iteration, else from the file, else from
    what the name has (`checkpoint-500`, a number at its end), else from the optimiser's count. Where no checkpoint
    has a step, epochs are the axis, and where there are none either, places in the natural order of the names.

    Raises:
        CheckpointError: if a path does not exist, or there is no checkpoint at all.
    """
    places = list(dict.fromkeys(place for path in _listed(paths) for place in _checkpoints_in(Path(path))))
    if not places:
        raise CheckpointError(
            f"expected checkpoints, got none in {', '.join(os.fspath(p) for p in _listed(paths)) or 'an empty list'}; "
            "they are .safetensors, .pt, .pth, .bin and .ckpt files, or folders of Hugging Face, Accelerate and "
            "torch.distributed.checkpoint"
        )
    labels = dict(zip(places, _labels(places), strict=True))
    ordered = sorted(places, key=lambda place: (natural(labels[place]), labels[place]))
    counts, problems = _counts(ordered, labels)
    for unit, at in (("step", 0), ("epoch", 1)):
        if any(found[at] is not None for found in counts.values()):
            return _with_axis(unit, {place: found[at] for place, found in counts.items()}, labels, problems)
    return _with_axis("place", {place: i for i, place in enumerate(counts)}, labels, problems)


def natural(text: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts numbers in names by their size.

    >>> sorted(["b10", "b9", "a"], key=natural)
    ['a', 'b9', 'b10']
    """
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.findall(r"\d{1,18}|\D+", text)]


def step_in_name(name: str) -> tuple[int | None, int | None, int | None]:
    """Return (step in so many words, step by the looks of it, epoch) from a name.

    >>> step_in_name("epoch=3-step=100"), step_in_name("checkpoint-500"), step_in_name("model_007")
    ((100, None, 3), (None, 500, None), (None, 7, None))
    """
    step, checkpoint, epoch = (_last(form, name) for form in (_BY_STEP, _BY_CHECKPOINT, _BY_EPOCH))
    if checkpoint is None and epoch is None and step is None:
        checkpoint = _last(_BY_NUMBER, name)
    return step, checkpoint, epoch


def _last(form: re.Pattern[str], name: str) -> int | None:
    found = form.findall(name)
    return int(found[-1]) if found else None


def _counts(
    places: Sequence[Path], labels: dict[Path, str]
) -> tuple[dict[Path, tuple[int | None, int | None]], list[Problem]]:
    """Return (step, epoch) by checkpoint; files are opened only where the name leaves it open."""
    counts: dict[Path, tuple[int | None, int | None]] = {}
    problems: list[Problem] = []
    for place in places:
        said, looks, epoch = step_in_name(_stem(place))
        if said is None:
            try:
                said, its_epoch, num_updates = _peek(place)
            except CheckpointError as error:
                problems.append(Problem(labels[place], str(error), looks or 0))
                continue
            epoch = epoch if its_epoch is None else its_epoch
            said = next((n for n in (said, looks, num_updates) if n is not None), None)
        counts[place] = (said, epoch)
    return counts, problems


def _peek(place: Path) -> tuple[int | None, int | None, int | None]:
    """Return step and epoch of a checkpoint and its optimiser's count, and let its weights go."""
    contents = load(place)
    return contents.step, contents.epoch, contents.num_updates


def _with_axis(unit: str, steps: dict[Path, int | None], labels: dict[Path, str], problems: list[Problem]) -> Found:
    taken: dict[int, str] = {}
    found: list[Checkpoint] = []
    for place, step in steps.items():
        if step is None:
            reason = (
                f"expected a {unit}, as the others have, got none in {labels[place]}; write it into the name, as "
                f"{unit}_100, or save it in the file"
            )
            problems.append(Problem(labels[place], reason))
        elif step in taken:
            reason = (
                f"expected one checkpoint at each {unit}, got {unit} {step} of {taken[step]} again in "
                f"{labels[place]}; leave one of them out"
            )
            problems.append(Problem(labels[place], reason, step))
        else:
            taken[step] = labels[place]
            found.append(Checkpoint(place, step, labels[place]))
    return Found(tuple(sorted(found, key=lambda c: c.step)), unit, tuple(problems))


def _listed(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str | os.PathLike[str]]:
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    found: list[str | os.PathLike[str]] = []
    for path in given:
        is_pattern = glob.has_magic(os.fspath(path)) and not os.path.exists(path)
        found += sorted(glob.glob(os.fspath(path))) if is_pattern else [path]
    return found


def _checkpoints_in(path: Path, depth: int = 0) -> Iterator[Path]:
    """Yield the checkpoints at a path: itself, or those in the folder."""
    if not path.exists():
        raise CheckpointError(f"expected a checkpoint or a folder of them, got nothing at {path}; check the path")
    if path.is_file():
        yield path
        return
    is_one = format_of(path) is not None
    inside = [] if distributed.matches(path) or depth >= _MAX_DEPTH else sorted(path.iterdir())
    children = [child for child in inside if child.is_dir() and _is_seen(child, path)]
    folders = [found for child in children for found in _checkpoints_in(child, depth + 1)]
    if folders and is_one:  # the Trainer saves the last weights beside the folders checkpoint-500, checkpoint-1000…
        yield from folders
    elif is_one:
        yield path
    else:
        yield from folders
        yield from (c for c in inside if c.is_file() and _is_seen(c, path) and format_of(c) is not None)


def _is_seen(child: Path, parent: Path) -> bool:
    if child.name.startswith(".") or _BESIDE.match(child.name):
        return False
    return not (child.name == hugging_face.FSDP and hugging_face.matches(parent))


def _stem(place: Path) -> str:
    """Return the name that says which checkpoint it is: of its folder for a `model.safetensors` in one."""
    if place.is_dir():
        return place.name
    return place.parent.name if place.name in hugging_face.SINGLE else place.name.removesuffix(place.suffix)


def _labels(places: Sequence[Path]) -> list[str]:
    """Return names as short as they can be and still differ."""
    num_parts = next((n for n in range(1, 9) if len({place.parts[-n:] for place in places}) == len(places)), None)
    short: Callable[[Path], str] = str if num_parts is None else lambda place: "/".join(place.parts[-num_parts:])
    return [short(place) for place in places]
