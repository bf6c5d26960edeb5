"""The shell of a report: one HTML file that opens offline, on a screen and on paper.

Its content security policy forbids every request and every script but the two that are in it, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import html

from plotly.offline import get_plotlyjs

WIDTH = 700  # pixels: an A4 page within margins of 12 mm
STYLE = """
:root {color-scheme: light dark; --ink: #1B1F24; --paper: #FFFFFF; --soft: #57606A; --line: #D7DCE1; --box: #F4F6F8;
  --alarm: #B3261E; --watch: #9A5B00; --healthy: #0B6E4F; --link: #0071AD;}
@media (prefers-color-scheme: dark) {:root {--ink: #E6E9EE; --paper: #12161C; --soft: #A7B0BA; --line: #39424D;
  --box: #1B212A; --alarm: #FF8A80; --watch: #FFC266; --healthy: #6FD6B0; --link: #4DB2EC;}}
body {margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 700px; color: var(--ink); background: var(--paper);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; overflow-wrap: break-word;}
h1 {font-size: 1.7rem; margin: 0;} h2 {font-size: 1.3rem; margin: 2rem 0 .5rem; border-top: 1px solid var(--line);
  padding-top: 1rem;} h3 {font-size: 1rem; margin: 0;} a {color: var(--link);}
p {margin: .3rem 0;} .soft, figcaption {color: var(--soft); font-size: .87rem;}
.verdict {border-left: 4px solid var(--line); padding: .2rem 0 .2rem .8rem; margin: 1rem 0;}
.alarm {border-color: var(--alarm);} .watch {border-color: var(--watch);}
.state {font-weight: 600; text-transform: uppercase; font-size: .75rem; letter-spacing: .04em;}
.alarm .state {color: var(--alarm);} .watch .state {color: var(--watch);} .ok {color: var(--healthy);}
.answer {font-weight: 600; font-size: 1.05rem; margin: .8rem 0;}
table {border-collapse: collapse; width: 100%; font-size: .82rem; margin: .5rem 0;}
th, td {text-align: left; padding: .2rem .5rem .2rem 0; border-bottom: 1px solid var(--line); vertical-align: top;}
th {color: var(--soft); font-weight: 600;} td {white-space: pre-wrap;}
.scroll {overflow-x: auto;}
figure {margin: 1.2rem 0; break-inside: avoid;} .chart {min-height: 1px;}
nav {font-size: .87rem;} nav a {margin-right: .8rem;}
.xtick text, .ytick text, .xtitle, .ytitle, .legendtext, .cbaxis text, .cbtitle text, .cbtitle {
  fill: var(--ink) !important;}
.annotation-text {fill: var(--soft) !important;}
.gridlayer path, .zerolinelayer path, .xlines-above, .ylines-above {stroke: var(--line) !important;}
.main-svg {background: transparent !important;}
@page {size: A4; margin: 12mm;}
@media print {
  :root {color-scheme: light; --ink: #000; --paper: #FFF; --soft: #444; --line: #BBB; --box: #FFF;
    --alarm: #B3261E; --watch: #9A5B00; --healthy: #0B6E4F; --link: #000;}
  body {padding: 0; font-size: 10.5pt;} nav, .modebar, .modebar-container {display: none !important;}
  h2, h3 {break-after: avoid;} tr, .verdict {break-inside: avoid;} thead {display: table-header-group;}
  a {text-decoration: none;}
}
"""
SCRIPT = """
(() => {
  const charts = [...document.querySelectorAll('.chart')], done = document.documentElement.dataset;
  const quiet = {displaylogo: false, modeBarButtonsToRemove: ['select2d', 'lasso2d', 'sendDataToCloud']};
  const draw = place => {
    if (place.dataset.drawn) return;
    place.dataset.drawn = 'yes';
    const figure = JSON.parse(place.nextElementSibling.textContent);
    figure.layout.width = Math.min(700, place.clientWidth || 700);
    Object.assign(figure.layout, {paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)', dragmode: 'zoom'});
    Plotly.newPlot(place, figure.data, figure.layout, quiet);
  };
  const rest = () => charts.forEach(draw);
  const next = () => {
    const place = charts.find(c => !c.dataset.drawn);
    if (place) { draw(place); setTimeout(next); } else done.drawn = charts.length;
  };
  addEventListener('beforeprint', rest);
  next();
})();
"""


def page(title: str, body: str) -> str:
    """Return a whole page.

    Args:
        title: plain text.
        body: HTML, with all foreign text in it escaped.
    """
    library = get_plotlyjs()
    policy = (
        f"default-src 'none'; script-src '{_hash(library)}' '{_hash(SCRIPT)}'; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n"
        '<noscript><p class="soft">The charts of this file are drawn by JavaScript, which is switched off.</p>'
        f"</noscript>\n<script>{library}</script>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _hash(script: str) -> str:
    """Return the hash by which the policy knows a script.

    >>> _hash("")[:14]
    'sha256-47DEQpj'
    """
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def data_block(text: str) -> str:
    r"""Return JSON as a block that no browser runs; nothing in it can end the block.

    >>> print(data_block('{"a": "</script><b>"}'))
    <script type="application/json">{"a": "\u003c/script>\u003cb>"}</script>
    """
    return f'<script type="application/json">{text.replace("<", chr(92) + "u003c")}</script>'
