"""Classes on a plane and pair by pair, as figures; a run file may hold anything."""

import numpy as np
import pytest
from conftest import HOSTILE

from trainvitals.schema import Chart, Description, Question, Reading
from trainvitals.views.class_charts import class_matrix, class_plane, cosines_of

PLANE = Description("nc.plane", "Plane", Question.REPRESENTATION, "s", unit="feature", chart=Chart.PLANE, keys="class")
MEANS = np.array([[1.0, 0.0], [-1.0, 1.0], [0.0, -1.0]])
DETAILS = {"x": [1.1, 0.9], "y": [0.1, -0.1], "labels": [0, 2], "shares": [0.75, 0.25],
           "rows_x": MEANS[:, 0], "rows_y": MEANS[:, 1]}  # fmt: skip


def reading(value=MEANS, keys=("0", "1", "2"), **details):
    return Reading(value=value, keys=keys, details=details)


def by_name(figure):
    return {trace.name: trace for trace in figure.data}


def test_means_samples_and_rows_stand_where_they_were_measured():
    figure = class_plane(PLANE, reading(**DETAILS), 40)
    drawn = by_name(figure)
    assert np.stack([drawn["class means"].x, drawn["class means"].y], 1).tolist() == MEANS.tolist()
    assert list(drawn["samples"].x) == [1.1, 0.9]
    assert drawn["samples"].marker.color[0] == drawn["class means"].marker.color[0]
    assert drawn["samples"].marker.color[1] == drawn["class means"].marker.color[2]
    assert list(drawn["classifier's rows"].x[:3]) == [0.0, 1.0, None]
    assert figure.layout.xaxis.title.text == "first axis: 75 % of the means' spread"
    assert figure.layout.yaxis.scaleanchor == "x"  # angles are what they are
    assert any(note.text == "step 40" for note in figure.layout.annotations)


@pytest.mark.parametrize("broken", [
    {}, {"x": [1.0], "y": [1.0, 2.0], "labels": [0]}, {"x": "no numbers", "y": [1.0], "labels": [0]},
    {"rows_x": [1.0], "rows_y": [1.0]}, {"shares": [np.nan, 1.0]},
], ids=["none", "lengths", "text", "rows", "shares"])  # fmt: skip
def test_what_is_not_what_it_says_is_left_out(broken):
    assert set(by_name(class_plane(PLANE, reading(**broken), 0))) == {"class means"}


def test_a_label_outside_the_classes_is_drawn_as_the_first():
    figure = class_plane(PLANE, reading(x=[0.0], y=[0.0], labels=[99]), 0)
    assert len(by_name(figure)["samples"].x) == 1


def test_a_value_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="expected class means"):
        class_plane(PLANE, reading(value=np.ones(3)), 0)


def test_the_matrix_is_symmetric_and_empty_on_its_diagonal():
    found = cosines_of(reading(pairs=[0.5, -0.25, 0.0]))
    assert found[0, 1] == found[1, 0] == 0.5
    assert found[0, 2] == -0.25
    assert found[1, 2] == 0.0
    assert np.isnan(np.diag(found)).all()
    figure = class_matrix(PLANE, reading(pairs=[0.5, -0.25, 0.0]), 7)
    assert (figure.data[0].zmin, figure.data[0].zmid, figure.data[0].zmax) == (-1, 0, 1)
    assert figure.data[0].text[0][1] == "0.50"
    assert figure.data[0].text[0][0] == ""


@pytest.mark.parametrize("pairs", [[], [0.5], "x"], ids=["none", "too few", "text"])
def test_without_all_pairs_there_is_no_matrix(pairs):
    assert cosines_of(reading(pairs=pairs)) is None
    with pytest.raises(ValueError, match="expected cosines of all pairs"):
        class_matrix(PLANE, reading(pairs=pairs), 0)


def test_hostile_class_names_are_letters():
    figure = class_plane(PLANE, reading(keys=(HOSTILE, "1", "2"), **DETAILS), 0)
    figure = figure.add_traces(class_matrix(PLANE, reading(keys=(HOSTILE, "b", "c"), pairs=[0, 0, 0]), 0).data)
    assert "<img" not in figure.to_json().replace("\\u003c", "<")
