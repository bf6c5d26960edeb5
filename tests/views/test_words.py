import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainvitals.views.words import clean, label, latex, middle_cut, number, plain, with_error


@given(st.text())
def test_clean_text_is_one_short_line_without_control_characters(text):
    shown = clean(text, 50)
    assert len(shown) <= 50
    assert not any(ord(c) < 32 for c in shown)


@given(st.text(alphabet="<>&$ab;'\""))
def test_a_label_holds_no_tag_and_no_dollar(text):
    assert not set("<>$") & set(label(text))


def test_markdown_is_shown_letter_by_letter():
    shown = plain("![x](http://evil) :smile: www.evil.com a@b.c `x` $y$ <b>")
    for live in ("![", ":smile:", "http://", "www.", "a@b", "`x`", "$y$", "<b>"):
        assert live not in shown
    assert "\\$y\\$" in shown
    assert "\\<b\\>" in shown


def test_a_formula_cannot_leave_its_mathematics():
    assert "$" not in latex("x $$ ![](http://evil)")


@pytest.mark.parametrize(
    ("value", "text"),
    [(float("inf"), "Inf"), (float("-inf"), "−Inf"), (float("nan"), "NaN"), (-1.5, "−1.5"), (None, "–")],
)
def test_numbers_that_are_not_plain_are_named(value, text):
    assert number(value) == text


def test_an_exact_number_has_no_error():
    assert with_error(1.0, float("nan")) == "1"


@given(st.text(min_size=1), st.integers(5, 60))
def test_a_cut_name_is_no_longer_than_allowed(name, limit):
    assert len(middle_cut(name, limit)) <= limit
