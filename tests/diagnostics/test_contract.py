"""What every diagnostic owes its card, its chart and its user, checked by walking the registry."""

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from trainvitals.diagnostics.base import Diagnostic, Needs, Tier
from trainvitals.diagnostics.registry import registered
from trainvitals.schema import Chart, Question, Scale

TESTS = Path(__file__).parent
EVERY = list(registered().values())
DESCRIBED = [(cls, words) for cls in EVERY for words in cls.descriptions().values()]
every_diagnostic = pytest.mark.parametrize("cls", EVERY, ids=lambda cls: cls.name)
every_metric = pytest.mark.parametrize(("cls", "words"), DESCRIBED, ids=[words.name for _, words in DESCRIBED])

# What issue 2 asks for; what stands in the registry besides is welcome.
ASKED = {
    "hessian.top", "hessian.bottom", "hessian.trace", "hessian.density",
    "stability.threshold", "stability.sharpness", "stability.ratio",
    "oui", "oui.layers", "oui.v2",
    "weights.norm.value", "weights.norm.growth", "weights.norm.distance", "update.ratio",
    "grad.norm", "grad.cosine", "grad.coherence", "grad.noise_scale",
    "grad.successive.gradient", "grad.successive.update",
    "nc1", "nc2.norms_means", "nc2.norms_weights", "nc2.angles_means", "nc2.angles_weights", "nc3", "nc4",
    "gap.loss", "gap.accuracy", "loss.train", "loss.heldout", "accuracy.train", "accuracy.heldout", "overtraining",
}  # fmt: skip


def test_every_metric_asked_for_is_described():
    assert {words.name for _, words in DESCRIBED} >= ASKED


@every_metric
def test_description_is_filled_in(cls, words):
    for field in ("name", "title", "summary", "formula", "unit", "undefined", "source", "cost"):
        text = getattr(words, field)
        assert isinstance(text, str), field
        assert text.strip(), field
    assert words.summary.rstrip().endswith((".", "!", "?")), words.summary
    assert words.version >= 1


@every_metric
def test_question_chart_and_scale_are_known(cls, words):
    assert words.question in set(Question)
    assert words.chart in set(Chart)
    assert words.scale in set(Scale)
    assert not (words.chart == Chart.HEATMAP and not words.keys), "a heatmap has a row per key: say of what"


@every_metric
def test_reference_lines_have_a_label_and_a_source(cls, words):
    for line in words.references:
        assert line.label.strip()
        assert line.source.strip()
        assert line.upper is None or line.upper > line.value


@every_diagnostic
def test_declarations_are_of_their_kind(cls):
    assert re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*", cls.name)
    assert isinstance(cls.needs, Needs)
    assert isinstance(cls.tier, Tier)
    assert isinstance(cls.interval, int)
    assert cls.interval >= 1
    assert cls.unit


@every_diagnostic
def test_it_is_a_dataclass_of_its_own_and_final(cls):
    assert "__dataclass_fields__" in vars(cls), "without @dataclass its options do not exist"
    assert cls.__bases__ == (Diagnostic,) or all(inspect.isabstract(base) for base in cls.__bases__)


@every_diagnostic
def test_it_is_made_without_arguments_and_all_its_options_have_defaults(cls):
    made = cls.configured({})
    assert {name: getattr(made, name) for name in cls.option_names()}.keys() == set(cls.option_names())


@every_diagnostic
def test_state_is_not_shared_between_instances(cls):
    one, other = cls.configured({}), cls.configured({})
    for field in dataclasses.fields(cls):
        if not field.init and isinstance(getattr(one, field.name), (list, dict, set)):
            assert getattr(one, field.name) is not getattr(other, field.name)


@every_diagnostic
def test_docstring_describes_the_class_and_every_option(cls):
    assert cls.__doc__ is not None
    text = cls.__doc__
    assert not text.startswith(f"{cls.__name__}("), "the docstring is the dataclass's signature"
    assert len(text.split()) >= 10
    for option in cls.option_names():
        assert re.search(rf"^\s*{option}: \S", text, re.MULTILINE), f"option {option} is not under Args:"
    if not cls.option_names():
        assert "Args:" not in text


@every_diagnostic
def test_its_module_has_a_test_file_that_names_it(cls):
    file = TESTS / f"test_{cls.__module__.rpartition('.')[2]}.py"
    assert file.is_file(), f"expected {file.name}"
    text = file.read_text()
    assert cls.__name__ in text or cls.name in text


@every_diagnostic
def test_an_unknown_option_is_refused(cls):
    with pytest.raises(ValueError, match=f"expected options of '{re.escape(cls.name)}'"):
        cls.configured({"no_such_option": 1})
