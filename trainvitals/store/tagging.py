"""Tags and notes of a run: header rows, written by whoever may write the run at that moment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trainvitals.redaction import redact_text
from trainvitals.store.errors import StoreError

MAX_TAG_CHARACTERS = 128
MAX_NOTE_CHARACTERS = 65_536


def add_tags(tags: Iterable[str], new: Sequence[str]) -> list[str]:
    """Return the tags with the new ones behind them, each once.

    Raises:
        StoreError: if one is empty, longer than 128 characters or no text.

    >>> add_tags(["baseline"], ["sweep", "baseline"])
    ['baseline', 'sweep']
    """
    return list(dict.fromkeys([*tags, *map(_tag, new)]))


def remove_tags(tags: Iterable[str], gone: Sequence[str]) -> list[str]:
    """Return the tags without some of them.

    >>> remove_tags(["baseline", "sweep"], ["sweep", "other"])
    ['baseline']
    """
    return [tag for tag in tags if tag not in set(gone)]


def add_note(note: str, text: str) -> str:
    r"""Return the note with a text on a new line.

    Raises:
        StoreError: if the text is empty or no text, or the whole is longer than 65,536 characters.

    >>> add_note("first", "second")
    'first\nsecond'
    """
    text = redact_text(text).strip() if isinstance(text, str) else ""
    whole = f"{note}\n{text}" if note else text
    if not text or len(whole) > MAX_NOTE_CHARACTERS:
        raise StoreError(
            f"expected a note of 1 to {MAX_NOTE_CHARACTERS} characters in all, got {len(whole) if text else 'no text'} "
            "in add_note; put the rest into a file"
        )
    return whole


def _tag(tag: str) -> str:
    text = redact_text(tag).strip() if isinstance(tag, str) else ""
    if not text or len(text) > MAX_TAG_CHARACTERS:
        raise StoreError(
            f"expected a tag of 1 to {MAX_TAG_CHARACTERS} characters, got {str(tag)[:40]!r} in add_tags; "
            "shorten it, or make a note of it"
        )
    return text
