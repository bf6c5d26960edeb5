"""Numbers, durations and foreign text as they are shown: everything from a run file passes through here.

Run names, layer names and messages are hostile text. They are shown as they are, never interpreted:
`plain` for places that read Markdown, `label` for places where plotly reads its own small HTML.
"""

from __future__ import annotations

import html
import math
import re
import unicodedata
from datetime import datetime, tzinfo

MAX_TEXT = 300  # characters; longer foreign text is cut
_JOINER = "\u2060"  # word joiner: invisible, and no parser looks through it
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$&^=])")
_AUTOMATIC = re.compile(r"(:|@|www)", re.IGNORECASE)  # emoji and colour directives, links made from bare addresses


def clean(text: object, limit: int = MAX_TEXT) -> str:
    r"""Return foreign text on one line, without control and direction characters, cut at `limit`.

    >>> clean("a\nb\u202ec")
    'a b�c'
    """
    flat = " ".join(str(text)[: 4 * limit].split())
    shown = "".join("\ufffd" if unicodedata.category(c) in {"Cc", "Cs"} or c in _DIRECTIONS else c for c in flat)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


_DIRECTIONS = set("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def plain(text: object, limit: int = MAX_TEXT) -> str:
    r"""Return foreign text for a place that reads Markdown: shown letter by letter.

    >>> plain("*a* $x$")
    '\\*a\\* \\$x\\$'
    """
    return _AUTOMATIC.sub(rf"\1{_JOINER}", _MARKDOWN.sub(r"\\\1", clean(text, limit)))


def label(text: object, limit: int = MAX_TEXT) -> str:
    """Return foreign text for a plotly label, which reads tags, entities and `$…$`.

    >>> label("<b>a</b> $x$")
    '&lt;b&gt;a&lt;/b&gt; &#36;x&#36;'
    """
    return html.escape(clean(text, limit), quote=False).replace("$", "&#36;")


def middle_cut(text: object, limit: int = 28) -> str:
    """Return a name cut in the middle: layer names differ at their ends.

    >>> middle_cut("encoder.layers.11.attention.output.weight", 20)
    'encoder.l…put.weight'
    """
    flat = clean(text)
    if len(flat) <= limit:
        return flat
    head = (limit - 1) // 2
    return flat[:head] + "…" + flat[-(limit - 1 - head) :]


def latex(formula: str) -> str:
    """Return a formula for `st.latex`: no dollar closes the mathematics, no line ends it."""
    return clean(formula, 2000).replace("$", "")


def number(value: float | None, digits: int = 4) -> str:
    """Return a number at that many significant digits; not-a-number and infinity by name.

    >>> number(0.000123456), number(1234567.0), number(float("nan")), number(250)
    ('0.0001235', '1.235e+06', 'NaN', '250')
    """
    if value is None:
        return "–"
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Inf" if value > 0 else "−Inf"
    text = f"{value:,d}" if isinstance(value, int) else f"{value:.{digits}g}"
    return text.replace("-", "−", 1) if value < 0 else text


def with_error(value: float | None, error: float | None) -> str:
    """Return value ± error, the error at two digits; without it where it is beyond the digits of the value.

    >>> with_error(38.123, 0.021), with_error(38.123, None), with_error(38.123, 4.2e-10)
    ('38.12 ± 0.021', '38.12', '38.12')
    """
    if value is None or error is None or math.isnan(error) or 0 < error < 0.5e-4 * abs(value):
        return number(value)
    return f"{number(value)} ± {number(error, 2)}"


def duration(seconds: float) -> str:
    """Return a duration in the unit that fits.

    >>> duration(0.0042), duration(4.26), duration(190), duration(8000)
    ('4.2 ms', '4.3 s', '3 min', '2 h 13 min')
    """
    if seconds < 0.1:
        return f"{1000 * max(seconds, 0):.2g} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 48 * 60 else f"{minutes // 1440} days"


def share(part: float) -> str:
    """Return a share as a percentage.

    >>> share(0.0213)
    '2.1 %'
    """
    return f"{100 * part:.2g} %" if part < 1 else f"{100 * part:.0f} %"


def clock(seconds: float, zone: tzinfo | None = None) -> str:
    """Return seconds since the epoch as local date and time."""
    return datetime.fromtimestamp(seconds, zone).strftime("%Y-%m-%d %H:%M:%S")


def steps(step: float) -> str:
    """Return a step number with thousands apart.

    >>> steps(12000)
    '12,000'
    """
    return f"{int(step):,}"
