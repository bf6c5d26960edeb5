"""Landscapes as charts: the weights are at the centre, and what is not finite is marked."""

import numpy as np
import pandas as pd
import pytest
from test_charts import as_dict, described, trace

from trainvitals.schema import Chart, Scale
from trainvitals.views import charts, landscape_charts
from trainvitals.views.measured import Measured

A = np.linspace(-1, 1, 5)


def table(*losses) -> pd.DataFrame:
    rows = [(100 * i, 0.0, A, loss) for i, loss in enumerate(losses)]
    return pd.DataFrame(rows, columns=["step", "time", "coordinates", "losses"])


def drawn(*losses, scale=Scale.LOG, **options) -> dict:
    description = described(chart=Chart.LANDSCAPE, scale=scale)
    return as_dict(landscape_charts.landscape(description, table(*losses), **options))


def test_a_curve_has_its_losses_and_the_weights_at_the_centre():
    figure = drawn(1 + A**2, 2 + A**2, directions="eigenvectors")
    last = trace(figure, "step 100")
    assert last["x"] == A.tolist()
    assert last["y"] == (2 + A**2).tolist()
    here = trace(figure, landscape_charts.HERE)
    assert (here["x"], here["y"]) == ([0], [2])
    assert figure["layout"]["xaxis"]["title"]["text"] == "along the direction (eigenvectors)"
    assert figure["layout"]["yaxis"]["type"] == "log"
    assert figure["layout"]["showlegend"]


def test_many_steps_show_five_curves_with_the_first_and_the_last():
    figure = drawn(*[i + 1 + A**2 for i in range(30)])
    names = [t["name"] for t in figure["data"] if t["name"].startswith("step")]
    assert len(names) == 5
    assert (names[0], names[-1]) == ("step 0", "step 2,900")


def test_a_plane_has_its_first_direction_on_x():
    losses = 1 + np.abs(A[:, None] * 3 + A[None])  # steep along the first direction
    figure = drawn(losses, scale=Scale.LINEAR, directions="random")
    contour = trace(figure, "step 0")
    assert contour["type"] == "contour"
    assert contour["z"] == losses.T.tolist()
    assert contour["x"] == contour["y"] == A.tolist()
    here = trace(figure, landscape_charts.HERE)
    assert (here["x"], here["y"]) == ([0], [0])
    assert here["customdata"] == ["the weights: 1"]
    assert figure["layout"]["xaxis"]["title"]["text"] == "along the first direction (random)"
    assert figure["layout"]["yaxis"]["title"]["text"] == "along the second direction"


def test_of_several_planes_the_last_is_shown_and_curves_beside_it_are_not():
    one = np.ones((5, 5))
    figure = drawn(1 + A**2, one, 3 * one, scale=Scale.LINEAR)
    assert [t["name"] for t in figure["data"] if t["name"].startswith("step")] == ["step 200"]
    assert trace(figure, "step 200")["z"] == (3 * one).tolist()


def test_losses_that_are_not_finite_are_marked_where_they_lie():
    losses = np.ones((5, 5))
    losses[4, 0], losses[0, 1] = np.inf, np.nan
    figure = drawn(losses)
    marks = trace(figure, "not drawn")
    assert sorted(zip(marks["x"], marks["y"], marks["customdata"], strict=True)) == [(-1, -0.5, "NaN"), (1, -1, "Inf")]


def test_draw_sends_landscapes_where_they_belong():
    with pytest.raises(ValueError, match="landscape"):
        charts.draw(Measured(described(chart=Chart.LANDSCAPE)))
