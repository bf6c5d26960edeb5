"""`trainvitals conditions`, and the page that it writes."""

import json
from pathlib import Path

from typer.testing import CliRunner

from trainvitals.cli import app
from trainvitals.verdicts.condition import conditions

PAGE = Path(__file__).parents[1] / "docs" / "verdicts.md"


def call(*words, code=0):
    result = CliRunner().invoke(app, ["conditions", *words])
    assert result.exit_code == code, result.output
    return result.output


def test_the_page_is_what_the_conditions_say():
    assert PAGE.read_text(encoding="utf-8") == call("--markdown"), "write it anew"


def test_every_condition_is_listed_and_says_what_to_try():
    listed = {c["id"]: c for c in json.loads(call("--json"))}
    assert list(listed) == [c.id for c in conditions()]
    assert all(c[fact] for c in listed.values() for fact in ("says", "source", "judged", "reads", "try"))
    assert set(listed) <= set(call().split())


def test_one_is_shown_in_full_and_an_unknown_one_is_told():
    assert "reads    loss.heldout" in call("overfitting")
    assert "expected one of" in call("overfiting", code=2)
