"""Draw the figures of `docs/tour.md` from the recorded runs: `python docs/tour_figures.py`.

The charts are those of the page *Compare runs*; headless Chromium makes pictures of them.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import plotly.io
from PIL import Image
from playwright.sync_api import sync_playwright

import trainvitals as tv
from trainvitals.sample_runs.catalogue import sample
from trainvitals.sample_runs.recordings import recorded_runs
from trainvitals.schema import Scale
from trainvitals.views.chart_style import ChartOptions
from trainvitals.views.charts import DEFAULT
from trainvitals.views.compare_charts import Course, comparison

FOLDER = Path(__file__).parent / "images" / "tour"
CHROMIUM = "/usr/bin/chromium"
WIDTH, HEIGHT = 460, 350  # of one chart, in pixels
NUM_COLOURS = 64  # of a picture


@dataclass(frozen=True)
class Panel:
    """One chart: a metric of all arms, or of some; of an array, one key, or all keys of the last step as x."""

    metric: str
    key: str | None = None
    arms: Sequence[str] = ()  # all if left out
    along_keys: bool = False
    log_steps: bool = False
    log_values: bool = False


TOUR = {
    "edge-of-stability": [Panel("stability.ratio", arms=("lr-0.2", "lr-0.5", "lr-1.0")), Panel("hessian.trace")],
    "random-labels": [Panel("accuracy.train"), Panel("gap.loss"), Panel("grad.coherence", log_steps=True)],
    "oui-weight-decay": [Panel("oui"), Panel("accuracy.heldout"), Panel("flipped_fit.flipped")],
    "label-noise": [Panel("flipped_fit.clean"), Panel("flipped_fit.flipped"), Panel("accuracy.heldout")],
    "neural-collapse": [Panel("nc1", log_steps=True), Panel("nc3", log_steps=True),
                        Panel("accuracy.train", log_steps=True)],
    "imbalanced-collapse": [Panel("mean_norm_0"), Panel("mean_norm_3"), Panel("largest_cosine")],
    "grokking": [Panel("accuracy.train", log_steps=True), Panel("accuracy.heldout", log_steps=True)],
    "softmax-collapse": [Panel("accuracy.heldout"), Panel("softmax_collapse")],
    "double-descent": [Panel("loss.heldout", log_values=True), Panel("loss.train", log_values=True)],
    "plasticity-loss": [Panel("task_accuracy"), Panel("rank.effective"), Panel("units.dead", key="1")],
    "attention-logits": [Panel("attention.max_logit", key="blocks.0"), Panel("loss.train")],
    "loss-barrier": [Panel("path.against.curve_heldout", along_keys=True), Panel("path.against.height_heldout")],
}  # fmt: skip


def course(run: tv.Run, name: str, place: int, panel: Panel) -> Course:
    """Return the course that a panel shows of one run.

    Raises:
        ValueError: if the metric has keys and none is chosen, or the chosen one is not there.
    """
    points = run.series(panel.metric)
    if panel.along_keys:
        points = points[points["step"] == points["step"].max()].reset_index(drop=True)
        return Course(name, place, points, points["key"].astype(float).to_numpy())
    keys = list(points["key"].unique())
    if panel.key is not None or len(keys) > 1:
        points = points[points["key"] == panel.key].reset_index(drop=True)
        if points.empty:
            raise ValueError(f"expected one of {keys}, got {panel.key!r} of {panel.metric!r} in course(); choose one")
    x = points["step"].to_numpy(float)
    return Course(name, place, points, x.clip(min=1) if panel.log_steps else x)


def chart(runs: dict[str, tv.Run], panel: Panel) -> str:
    """Return one chart as HTML."""
    arms = panel.arms or list(runs)
    places = {arm: place for place, arm in enumerate(runs)}
    described = {name: words for run in runs.values() for name, words in run.descriptions.items()}
    title = panel.metric.replace("_", " ")  # of what a script has logged itself
    description = described.get(panel.metric) or tv.Description(panel.metric, title, "", "")
    figure = comparison(description, [course(runs[arm], arm, places[arm], panel) for arm in arms],
                        "place on the line" if panel.along_keys else "step",
                        options=ChartOptions(scale=Scale.LOG) if panel.log_values else DEFAULT)  # fmt: skip
    figure.update_layout(width=WIDTH, height=HEIGHT, margin={"t": 90, "r": 16, "l": 60, "b": 44},
                         title={"text": description.title, "font": {"size": 14}, "x": 0.02, "y": 0.95},
                         paper_bgcolor="white", plot_bgcolor="white",
                         legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom",
                                 "font": {"size": 10}})  # fmt: skip
    if panel.log_steps:
        figure.update_xaxes(type="log")
    return plotly.io.to_html(figure, full_html=False, include_plotlyjs=False, config={"staticPlot": True})


def main() -> None:
    """Draw the stops that are named, or all."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    script = f"<script>{plotly.offline.get_plotlyjs()}</script>"
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name in sys.argv[1:] or TOUR:
            chosen = sample(name)
            recorded = recorded_runs(chosen, Path(folder))
            runs = {arm: recorded[arm] for arm in chosen.arms}
            charts = "".join(f"<div>{chart(runs, panel)}</div>" for panel in TOUR[name])
            page = browser.new_page(viewport={"width": WIDTH * len(TOUR[name]), "height": HEIGHT})
            page.set_content(f'<body style="margin:0;display:flex">{script}{charts}</body>')
            page.wait_for_timeout(1500)
            picture = Image.open(BytesIO(page.screenshot())).convert("RGB").quantize(NUM_COLOURS)
            picture.save(FOLDER / f"{name}.png", optimize=True)
            print(name, (FOLDER / f"{name}.png").stat().st_size // 1024, "KiB")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
