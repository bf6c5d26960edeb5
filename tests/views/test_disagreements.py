import json
import stat

import pytest

from trainvitals.schema import Verdict, VerdictState
from trainvitals.views import disagreements

VERDICT = Verdict("overfitting", "Overfitting", VerdictState.ALARM, 400)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return tmp_path


def test_labels_are_kept_a_line_each_for_their_owner_alone(home):
    disagreements.keep("run-1", 900, VERDICT, "healthy", "warm restart\n\x1b")
    file = disagreements.keep("run-2", None, VERDICT, "watch", "x" * 9999)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(x["run"], x["step"], x["condition"], x["state"], x["since"], x["label"]) for x in lines] == [
        ("run-1", 900, "overfitting", "alarm", 400, "healthy"), ("run-2", None, "overfitting", "alarm", 400, "watch"),
    ]  # fmt: skip
    assert lines[0]["note"] == "warm restart\n\x1b"
    assert len(lines[1]["note"]) == disagreements.MAX_NOTE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_file_cannot_fill_a_disk(home, monkeypatch):
    monkeypatch.setattr(disagreements, "MAX_BYTES", 100)
    disagreements.keep("run", 1, VERDICT, "healthy", "")
    with pytest.raises(OSError, match="move it away"):
        disagreements.keep("run", 1, VERDICT, "healthy", "")
