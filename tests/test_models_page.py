"""docs/models.md: its example runs, and its tables name what the lists hold."""

import re
from pathlib import Path

import hugging_face  # noqa: F401  (imports transformers in a way that needs no torchvision)
import numpy as np
from model_zoo import LOSSES
from torch import nn

PAGE = (Path(__file__).parent.parent / "docs" / "models.md").read_text(encoding="utf-8")


def test_the_example_runs_in_15_lines(capsys):
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(code.strip().splitlines()) <= 15
    names = {}
    exec(compile(code, "docs/models.md", "exec"), names)
    assert all(np.isfinite(reading.value).all() for reading in names["readings"].values())
    assert isinstance(names["model"], nn.Module)
    assert "[" in capsys.readouterr().out


def test_the_number_of_losses_is_that_of_the_list():
    assert f"| {len(LOSSES)} losses" in PAGE
