"""Tables of samples: the right ones on top, pictures that are PNG files, and nothing trusted of a run file."""

import base64
import struct
import zlib

import numpy as np
import pytest

from trainvitals.schema import Question, Reading
from trainvitals.views.pictures import picture, png
from trainvitals.views.sample_tables import INPUTS, RANKINGS, are_pictures, ranked, table

BY_NAME = {ranking.name: ranking for ranking in RANKINGS}


class View:
    """What the tables read of a run's view."""

    def __init__(self, **readings):
        self.latest = {name.replace("__", "."): (7, reading) for name, reading in readings.items()}


def by_sample(*values):
    return Reading(value=np.array(values, float))


def inputs(**changes):
    levels = np.arange(4 * 6, dtype=np.uint8).reshape(4, 6)
    details = {"kind": "image", "height": 2, "width": 3, "channels": 1, "labels": np.array([3, 1, 4, 1])}
    return Reading(value=changes.pop("value", levels), details={**details, **changes})


def decoded(data):
    """Return the (H, W, C) levels of a PNG file without filters."""
    width, height, _, kind = struct.unpack(">IIBB", data[16:26])
    start = data.index(b"IDAT") + 4
    (length,) = struct.unpack(">I", data[start - 8 : start - 4])
    channels = 3 if kind == 2 else 1
    lines = np.frombuffer(zlib.decompress(data[start : start + length]), np.uint8).reshape(height, -1)
    assert (lines[:, 0] == 0).all()
    return lines[:, 1:].reshape(height, width, channels)


@pytest.mark.parametrize("shape", [(2, 3, 1), (4, 2, 3)])
def test_a_png_holds_the_levels(shape):
    levels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.testing.assert_array_equal(decoded(png(levels)), levels)


def test_a_small_picture_is_enlarged_pixel_by_pixel():
    levels = np.array([[[0], [255]], [[7], [9]]], np.uint8)
    shown = decoded(base64.b64decode(picture(levels).removeprefix("data:image/png;base64,")))
    assert shown.shape == (48, 48, 1)
    np.testing.assert_array_equal(shown[::24, ::24], levels)


def test_other_levels_are_refused():
    with pytest.raises(ValueError, match="in png; convert"):
        png(np.zeros((2, 2, 2), np.uint8))


def test_rankings_put_what_matters_on_top():
    view = View(samples__loss=by_sample(0.1, 3.0, np.nan, 2.0), samples__aum=by_sample(5.0, -2.0, 1.0, -3.0),
                forgetting__events=by_sample(0, 2, 1, 0), samples__predicted=by_sample(0, 1, 2, 3))  # fmt: skip
    assert ranked(view, BY_NAME["samples.loss"])["Sample"].tolist() == [1, 3, 0]
    assert ranked(view, BY_NAME["samples.aum"])["Sample"].tolist() == [3, 1, 2, 0]
    assert ranked(view, BY_NAME["forgetting.events"])["Sample"].tolist() == [1, 2]
    rows = ranked(view, BY_NAME["samples.loss"])
    assert rows["Predicted"].tolist() == [1, 3, 0]
    assert rows["Mean margin"].tolist() == [-2.0, -3.0, 5.0]
    assert ranked(view, BY_NAME["grand"]).empty


def test_a_row_has_its_picture_and_its_label():
    view = View(samples__inputs=inputs(), samples__loss=by_sample(1, 2, 3, 4, 5))
    rows = table(view, [2, 4])
    assert rows["Label"].iloc[0] == 4
    assert np.isnan(rows["Label"].iloc[1])
    assert rows["Input"].iloc[0].startswith("data:image/png;base64,")
    assert rows["Input"].isna().tolist() == [False, True]  # that one was not kept
    assert are_pictures(view)


def test_tokens_are_text():
    view = View(samples__inputs=Reading(value=np.array([[1, 2, 3]]), details={"kind": "tokens"}))
    assert table(view, [0])["Input"].tolist() == ["[1, 2, 3]"]
    assert not are_pictures(view)


@pytest.mark.parametrize(
    "changes",
    [
        {"height": 10**9}, {"height": "<b>"}, {"channels": 2}, {"width": None}, {"kind": "<script>"},
        {"value": np.zeros((4, 6))}, {"value": np.zeros((4, 5), np.uint8)}, {"value": 3.0}, {"height": float("nan")},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_inputs_that_are_not_what_they_say_are_not_shown(changes):
    view = View(samples__inputs=inputs(**changes), samples__loss=by_sample(1, 2))
    rows = table(view, [0, 1])
    assert "Input" not in rows or rows["Input"].isna().all()


def test_every_metric_of_single_samples_is_asked_for_on_this_page():
    from trainvitals.diagnostics.registry import described

    names = {name for name, words in described().items() if words.keys == "sample"}
    assert {described()[name].question for name in names} == {Question.SAMPLES}
    assert {ranking.name for ranking in RANKINGS} <= names
    assert INPUTS not in names  # no diagnostic: the run keeps them once
