"""The dashboard: a page for every question, and the run picker beside them.

`streamlit run trainvitals/views/dashboard.py -- --store FOLDER`, or `app.py` in a checkout.
"""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import streamlit as st

from trainvitals.views.chart_options import chart_options
from trainvitals.views.follow import follow_newest
from trainvitals.views.login import door, leave
from trainvitals.views.run_picker import picker
from trainvitals.views.step_range import step_range
from trainvitals.views.store_folder import store_folder
from trainvitals.views.tab import watch_tab

PAGES = Path(__file__).parent / "app_pages"
ORDER = (  # file, title, icon, path in the address; a test compares the files with the folder
    ("is_anything_wrong.py", "Is anything wrong?", ":material/vital_signs:", ""),
    ("is_it_overfitting.py", "Is it overfitting?", ":material/call_split:", "overfitting"),
    ("how_sharp_is_it.py", "How sharp is it?", ":material/show_chart:", "sharpness"),
    ("is_it_stable.py", "Is it stable?", ":material/balance:", "stability"),
    ("do_the_gradients_agree.py", "Do the gradients agree?", ":material/alt_route:", "gradients"),
    ("what_has_it_learned.py", "What has it learned?", ":material/hub:", "representation"),
    ("which_weights_grow.py", "Which weights grow?", ":material/trending_up:", "weights"),
    ("which_samples.py", "Which samples?", ":material/image_search:", "samples"),
    ("compare_runs.py", "Compare runs", ":material/compare_arrows:", "compare"),
    ("checkpoints.py", "Checkpoints", ":material/route:", "checkpoints"),
)
# A picture of our own: Streamlit's emoji and material icons are fetched from the internet.
ICON = "data:image/svg+xml;base64," + b64encode(
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24">'
    b'<path d="M2 13h5l2-8 5 15 3-9 1.5 2H22" fill="none" stroke="#0083C9" stroke-width="2.5"/></svg>'
).decode()
# Elements about to be redrawn are not dimmed: a live page would pulse. Captions and tags are legible (WCAG 1.4.3).
TIGHTER = """<style>
.stMainBlockContainer {padding: 4rem 2rem 2rem 2rem;}
[data-testid="stCaptionContainer"] {opacity: 1 !important; color: light-dark(#57606A, #A7B0BA) !important;}
.stMultiSelect span[title] {color: light-dark(#FFFFFF, #12161C) !important;}
[data-stale="true"] {opacity: 1 !important; transition: none !important;}
.stHeading h2 {padding: 0; font-size: 1.75rem;}
.stHeading h3 {padding: .25rem 0 0 0; font-size: 1.2rem;}
@media (max-width: 640px) {.stMainBlockContainer {padding-left: 1rem; padding-right: 1rem;}}
</style>"""  # constant: nothing of a run ever goes in here


def main() -> None:
    """Show the picked page of the picked run."""
    st.set_page_config(page_title="TrainVitals", page_icon=ICON, layout="wide")
    st.html(TIGHTER)
    door()
    page = st.navigation([
        st.Page(PAGES / file, title=title, icon=icon, url_path=path or None, default=not path)
        for file, title, icon, path in ORDER
    ])  # fmt: skip
    with st.sidebar:
        picker(store_folder())
        follow_newest(store_folder())
        step_range()
        with st.expander("Charts", key="charts", bind="query-params", on_change="ignore"):
            chart_options()
        leave()
        watch_tab()
    page.run()


if __name__ == "__main__":
    main()
