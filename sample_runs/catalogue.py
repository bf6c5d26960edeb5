"""Which samples there are: every numbered script of this folder, found and never listed by hand."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import trainvitals as tv
    from trainvitals.sample_runs.claims import Claim, Runs

FOLDER = Path(__file__).parent
RECORDED = FOLDER / "recorded"
PARAGRAPHS = ("Claim", "Formula", "Paper", "Look at", "Falsified by")  # of a script's docstring, in this order
NUMBERED = re.compile(r"\d\d_\w+\.py")


@dataclass(frozen=True)
class Sample:
    """One phenomenon, as its script says it. Reading it imports neither the script nor torch."""

    path: Path
    number: int
    name: str  # as the command line takes it: edge-of-stability
    title: str  # the first sentence of the script
    words: Mapping[str, str]  # the paragraphs of the docstring: Claim, Formula, Paper, Look at, Falsified by

    @property
    def script(self) -> Any:
        """The script as a module, with `train`, `claim` and `ARMS`."""
        return import_module(f"trainvitals.sample_runs.{self.path.stem}")

    @property
    def arms(self) -> dict[str, dict[str, Any]]:
        """The runs that the claim compares: arguments of `train`, by the name of the arm."""
        return self.script.ARMS

    @property
    def train(self) -> Callable[..., tv.Run]:
        """The function that trains one run and returns it: `train(seed=0, *, store="runs/", name=..., ...)`."""
        return self.script.train

    @property
    def claim(self) -> Callable[[Runs], Claim]:
        """The function that says of one run an arm whether the effect is there: `claim(runs)`."""
        return self.script.claim

    @property
    def num_seeds(self) -> int:
        """Over how many seeds the claim is checked: 3, or what the script says."""
        return getattr(self.script, "NUM_SEEDS", 3)

    @property
    def parameters(self) -> dict[str, Any]:
        """What can be changed in `train`, with the defaults: learning rate, weight decay, label noise and so on."""
        own = inspect.signature(self.train).parameters.values()
        return {p.name: p.default for p in own if p.kind is p.KEYWORD_ONLY and p.name not in ("store", "name")}

    @property
    def recordings(self) -> dict[str, Path]:
        """The recorded runs that are shipped, by the name of the arm: packed, `recordings.unpack` opens them."""
        found = {path.name.removesuffix(".sqlite.gz"): path for path in (RECORDED / self.name).glob("*.sqlite.gz")}
        return dict(sorted(found.items()))

    def changed(self, settings: Mapping[str, str]) -> dict[str, Any]:
        """Return settings given as text in the types of the parameters.

        Raises:
            ValueError: for a parameter that is not there, with the nearest names, or a text that does not fit it.
        """
        known = self.parameters
        for key in settings:
            if key not in known:
                near = get_close_matches(key, known, 3, 0.4) or list(known)
                raise ValueError(
                    f"expected a parameter of the sample {self.name}, got {key!r}; try {' or '.join(near)}"
                )
        return {key: _as_type_of(known[key], text, f"{self.name} {key}") for key, text in settings.items()}


def _as_type_of(default: Any, text: str, what: str) -> Any:
    kind = type(default)
    words = {"true": True, "false": False}
    try:
        return words[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError):
        raise ValueError(f"expected a {kind.__name__} such as {default!r}, got {text!r} for {what}") from None


@cache
def samples() -> tuple[Sample, ...]:
    """Return all samples in reading order.

    >>> samples()[0].name
    'edge-of-stability'
    """
    return tuple(_read(path) for path in sorted(FOLDER.iterdir()) if NUMBERED.fullmatch(path.name))


def sample(name: str) -> Sample:
    """Return the sample of a name, or of the beginning of its number and name, such as `01` or a file's name.

    Raises:
        ValueError: if there is none, with the nearest names.
    """
    wanted = Path(name).stem.replace("_", "-")
    for each in samples():
        if wanted in (each.name, f"{each.number:02}", f"{each.number:02}-{each.name}"):
            return each
    names = [each.name for each in samples()]
    near = get_close_matches(wanted, names, 3, 0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else "`trainvitals sample list` names all"
    raise ValueError(f"expected the name of a sample, got {name!r}; {hint}")


def _read(path: Path) -> Sample:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    title, *paragraphs = (" ".join(part.split()) for part in text.split("\n\n"))
    words = dict(part.split(": ", 1) for part in paragraphs if part.split(": ", 1)[0] in PARAGRAPHS)
    number, _, name = path.stem.partition("_")
    return Sample(path, int(number), name.replace("_", "-"), title, words)
