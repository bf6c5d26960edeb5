"""Charts are data until the last moment: read here as dicts."""

import base64
import json

import numpy as np
import pandas as pd
import pytest
from conftest import HOSTILE

from trainvitals.schema import Chart, Description, ReferenceLine, Scale
from trainvitals.views import charts
from trainvitals.views.measured import Measured
from trainvitals.views.thinning import MAX_COLUMNS, MAX_POINTS, most_columns


def described(**changes) -> Description:
    return Description(**{"name": "m", "title": "A metric", "question": "Q", "summary": "s", "unit": "loss", **changes})


def points(steps, values, error=np.nan, key="", converged=None) -> pd.DataFrame:
    n = len(steps)
    return pd.DataFrame({"step": list(steps), "time": np.zeros(n), "key": [key] * n, "value": np.asarray(values, float),
                         "error": np.broadcast_to(np.asarray(error, float), n), "converged": [converged] * n,
                         "seconds": np.zeros(n)})  # fmt: skip


def missing(*steps, reason="no reason") -> pd.DataFrame:
    return pd.DataFrame({"step": list(steps), "time": [0.0] * len(steps), "reason": [reason] * len(steps)})


def as_dict(figure) -> dict:
    return _decoded(json.loads(json.dumps(figure.to_plotly_json(), default=lambda a: np.asarray(a).tolist())))


def _decoded(part):
    """Return the figure with plotly's packed arrays as lists."""
    if isinstance(part, dict) and "bdata" in part:
        flat = np.frombuffer(base64.b64decode(part["bdata"]), part["dtype"])
        shape = [int(n) for n in str(part.get("shape", flat.size)).split(",")]
        return flat.reshape(shape).tolist()
    if isinstance(part, dict):
        return {key: _decoded(value) for key, value in part.items()}
    return [_decoded(item) for item in part] if isinstance(part, list) else part


def trace(figure: dict, name: str) -> dict:
    found = [t for t in figure["data"] if t.get("name") == name]
    assert len(found) == 1, [t.get("name") for t in figure["data"]]
    return found[0]


def test_a_line_has_its_points_unit_and_step_axis():
    figure = as_dict(charts.draw(Measured(described(), points([0, 10, 20], [3, 2, 1])), span=(0, 100), revision="r"))
    line = trace(figure, "A metric")
    assert (line["x"], line["y"]) == ([0, 10, 20], [3, 2, 1])
    assert figure["layout"]["yaxis"]["title"]["text"] == "loss"
    assert figure["layout"]["xaxis"]["title"]["text"] == "step"
    assert trace(figure, "span")["x"] == [0, 100]
    assert "range" not in figure["layout"]["xaxis"]  # a range that changes would undo the reader's zoom
    assert figure["layout"]["uirevision"] == "r"


def test_the_error_band_is_the_value_plus_and_minus_its_error():
    figure = as_dict(charts.draw(Measured(described(), points([0, 1], [10, 20], error=[1, 2]))))
    band = trace(figure, "± error")
    assert band["fill"] == "toself"
    assert band["y"] == [11, 22, 18, 9]


def test_a_band_that_reaches_zero_ends_at_the_floor_of_a_logarithmic_axis():
    figure = as_dict(charts.draw(Measured(described(scale=Scale.LOG), points([0, 1], [1.0, 2.0], error=[5.0, 0.5]))))
    assert min(trace(figure, "± error")["y"]) == 0.5  # half of the smallest value
    assert figure["layout"]["yaxis"]["type"] == "log"


def test_keyed_lines_carry_error_bars():
    table = pd.concat([points([0, 1], [5, 6], error=0.5, key="1"), points([0, 1], [3, 4], error=0.25, key="2")])
    figure = as_dict(charts.draw(Measured(described(chart=Chart.LINES, keys="rank"), table)))
    assert trace(figure, "rank 1")["error_y"]["array"] == [0.5, 0.5]
    assert trace(figure, "rank 2")["error_y"]["arrayminus"] == [0.25, 0.25]


def test_a_threshold_is_drawn_with_its_label_and_its_source():
    line = ReferenceLine("2/η", 40.0, "Cohen et al. 2021")
    figure = as_dict(charts.draw(Measured(described(references=(line,)), points([0, 5], [1, 2]))))
    drawn = trace(figure, "2/η")
    assert drawn["y"] == [40.0] * 3
    assert "Cohen et al. 2021" in drawn["customdata"][0]
    assert [a["text"] for a in figure["layout"]["annotations"]] == ["2/η"]


def test_a_threshold_label_on_a_logarithmic_axis_stands_at_its_power():
    line = ReferenceLine("edge", 100.0, "s")
    figure = as_dict(charts.draw(Measured(described(references=(line,), scale=Scale.LOG), points([0, 5], [1, 2]))))
    assert figure["layout"]["annotations"][0]["y"] == pytest.approx(2.0)


def test_a_published_band_is_filled_between_its_ends():
    band = ReferenceLine("band", 0.6, "paper", 0.8)
    figure = as_dict(charts.draw(Measured(described(references=(band,)), points([0, 5], [0.5, 0.7]))))
    filled = [t for t in figure["data"] if t.get("fill") == "toself"]
    assert filled[0]["y"] == [0.6, 0.6, 0.8, 0.8]


def test_missing_points_are_ticks_with_their_reason_and_break_the_line():
    measured = Measured(described(), points([0, 20], [1, 2]), missing(10, reason="one class only"))
    figure = as_dict(charts.draw(measured))
    ticks = trace(figure, "A metric, missing")
    assert ticks["x"] == [10]
    assert ticks["yaxis"] == "y2"
    assert "one class only" in ticks["customdata"][0]
    line = trace(figure, "A metric")
    assert line["x"] == [0, 10, 20]
    assert np.isnan(line["y"][1])
    assert line["connectgaps"] is False


def test_nan_and_infinity_are_marked_not_skipped():
    figure = as_dict(charts.draw(Measured(described(), points([0, 1, 2, 3], [1, np.nan, np.inf, -np.inf]))))
    odd = trace(figure, "A metric, off the axis")
    assert odd["x"] == [1, 2, 3]
    assert odd["marker"]["symbol"] == ["x", "triangle-up", "x"]
    assert [text.split(": ")[1] for text in odd["customdata"]] == ["NaN", "Inf", "−Inf"]


def test_zero_on_a_logarithmic_axis_is_marked():
    figure = as_dict(charts.draw(Measured(described(scale=Scale.LOG), points([0, 1], [1, 0]))))
    assert trace(figure, "A metric, off the axis")["customdata"] == ["A metric: 0"]


def test_a_value_that_did_not_converge_is_hollow_and_says_so():
    figure = as_dict(charts.draw(Measured(described(), points([0], [1], converged=False))))
    line = trace(figure, "A metric")
    assert line["marker"]["symbol"] == ["circle-open"]
    assert "not converged" in line["customdata"][0]


def test_signed_values_over_decades_stand_on_a_symmetric_logarithm_with_true_labels():
    table = points([0, 1, 2, 3], [-100, 0, 100, 1])
    figure = as_dict(charts.draw(Measured(described(scale=Scale.SYMLOG), table)))
    y = trace(figure, "A metric")["y"]
    assert y[0] == -y[2]
    assert y[1] == 0
    assert {"−10", "0", "100"} <= set(figure["layout"]["yaxis"]["ticktext"])


def test_a_long_line_is_thinned_and_keeps_its_extremes():
    values = np.sin(np.arange(100_000) / 50)
    values[77_777] = 9.0
    figure = as_dict(charts.draw(Measured(described(), points(range(100_000), values))))
    y = trace(figure, "A metric")["y"]
    assert len(y) <= MAX_POINTS
    assert max(y) == 9.0


def test_a_heatmap_has_a_row_per_key_and_caps_its_columns():
    table = pd.concat([points(range(1000), np.arange(1000), key=key) for key in ("conv1", "fc")])
    figure = as_dict(charts.draw(Measured(described(chart=Chart.HEATMAP), table)))
    heat = figure["data"][0]
    assert np.shape(heat["z"]) == (2, MAX_COLUMNS)
    assert heat["x"][0] == 0
    assert heat["x"][-1] == 999
    assert figure["layout"]["yaxis"]["ticktext"] == ["conv1", "fc"]
    assert heat["colorbar"]["title"]["text"] == "loss"


@pytest.mark.parametrize(("unit", "title"), [("1", ""), ("", ""), ("loss / weight²", "loss / weight²")])
def test_only_a_real_unit_is_an_axis_title(unit, title):
    table = points([0, 1], [1, 2])
    line = as_dict(charts.draw(Measured(described(unit=unit), table)))
    heat = as_dict(charts.draw(Measured(described(unit=unit, chart=Chart.HEATMAP), table)))
    assert line["layout"]["yaxis"]["title"]["text"] == title
    assert heat["data"][0]["colorbar"]["title"]["text"] == title


def test_zeros_on_a_logarithmic_colour_scale_have_a_colour_below_all_others():
    table = pd.concat([points([0, 1], [0.0, 1e-6], key="a"), points([0, 1], [1.0, -1.0], key="b"),
                       points([1], [0.0], key="c")])  # fmt: skip
    figure = as_dict(charts.heatmap(Measured(described(scale=Scale.LOG), table)))
    heat = figure["data"][0]
    zero = heat["z"][0][0]
    assert zero < heat["z"][0][1] == -6.0
    assert heat["z"][2][1] == zero
    assert np.isnan(heat["z"][2][0])  # not measured, so not coloured
    assert heat["customdata"][0][0] == 0
    bar = dict(zip(heat["colorbar"]["tickvals"], heat["colorbar"]["ticktext"], strict=True))
    assert [text for level, text in bar.items() if np.isclose(level, zero)] == ["0"]  # cells are sent as float32
    assert bar[-6.0] == "10<sup>−6</sup>"
    assert trace(figure, "not drawn")["customdata"] == ["b: −1"]


def test_hundreds_of_rows_stay_on_one_screen_and_some_are_named():
    table = pd.concat([points([0, 1], [0.0, 1.0], key=str(i)) for i in range(300)])
    found = as_dict(charts.heatmap(Measured(described(), table)))
    axis = found["layout"]["yaxis"]
    assert found["layout"]["height"] <= 500
    assert 15 <= len(axis["ticktext"]) <= 20
    assert axis["ticktext"][1] == str(int(axis["tickvals"][1]))
    assert len(found["data"][0]["z"]) == 300


def test_a_heatmap_is_bounded_by_pixels_and_two_layers_of_one_text_stay_two_rows():
    keys = [f"encoder.layers.{i}.attention.weight" for i in range(198)] + ["a\n", "a"]
    table = pd.concat([points(range(2000), [1.0 + i] * 2000, key=key) for i, key in enumerate(keys)])
    figure = charts.heatmap(Measured(described(), table))
    found = as_dict(figure)["data"][0]
    assert np.shape(found["z"]) == (200, most_columns(200))
    assert len(set(found["y"])) == 200
    assert found["z"][199][0] == 200.0
    assert len(figure.to_json()) < 300_000


def test_a_heatmap_of_nothing_but_zeros_is_coloured():
    heat = as_dict(charts.heatmap(Measured(described(scale=Scale.LOG), points([0, 1], [0, 0], key="a"))))["data"][0]
    assert heat["z"] == [[0.0, 0.0]]
    assert heat["colorbar"]["ticktext"] == ["0"]


def test_growth_is_coloured_around_one():
    table = pd.concat([points([0, 1], [1.0, 4.0], key="a"), points([0, 1], [1.0, 0.9], key="b")])
    heat = as_dict(charts.heatmap(Measured(described(scale=Scale.LOG), table), centre=1.0))["data"][0]
    assert heat["zmid"] == 0.0
    assert heat["zmax"] == pytest.approx(np.log10(4.0))
    assert heat["zmin"] == pytest.approx(-np.log10(4.0))


def test_cells_without_a_colour_are_crossed_out():
    table = pd.concat([points([0, 1], [1.0, np.inf], key="a"), points([0, 1], [np.nan, 2.0], key="b"),
                       points([0], [3.0], key="c")])  # fmt: skip
    figure = as_dict(charts.heatmap(Measured(described(), table)))
    assert trace(figure, "not drawn")["customdata"] == ["a: Inf", "b: NaN"]  # c was not measured at 1


def test_many_keys_of_lines_become_a_heatmap():
    table = pd.concat([points([0], [i], key=f"k{i}") for i in range(30)])
    assert charts.draw(Measured(described(chart=Chart.LINES), table)).data[0].type == "heatmap"


def test_an_unknown_chart_kind_is_drawn_as_lines():
    assert charts.draw(Measured(described(chart="hologram"), points([0, 1], [1, 2]))).data[0].type == "scatter"


def test_draw_refuses_a_density():
    with pytest.raises(ValueError, match="spectrum_over_steps"):
        charts.draw(Measured(described(chart=Chart.WATERFALL)))


@pytest.mark.parametrize("chart", [Chart.LINES, Chart.HEATMAP])
def test_hostile_text_is_escaped_wherever_plotly_reads_it(chart):
    description = described(title=HOSTILE, unit=HOSTILE, chart=chart, keys=HOSTILE,
                            references=(ReferenceLine(HOSTILE, 1.0, HOSTILE),))  # fmt: skip
    table = pd.concat([points([0, 1], [1, np.nan], key=HOSTILE), points([0, 1], [1, 2], key="b")])
    figure = as_dict(charts.draw(Measured(description, table, missing(1, reason=HOSTILE))))
    figure["layout"].pop("template", None)
    text = json.dumps(figure)
    assert "<img" not in text
    assert "$x$" not in text
    assert "&lt;img" in text


def test_the_turn_is_marked_only_inside_the_span():
    parts = [Measured(described(), points([0, 10], [1, 2]))]
    shown = [len(charts.lines(parts, marks=[(step, "lowest")], span=(0, 10)).layout.shapes) for step in (5, 50)]
    assert shown == [1, 0]
