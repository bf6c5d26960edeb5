"""Colours that colour-blind readers tell apart, on white and on black.

Okabe and Ito's set (Color Universal Design, 2008), without its yellow and black; lines differ by dash
and marker too. Heatmaps use Cividis (Nuñez, Anderton and Renslow 2018) and, around a centre, plotly's
purple–orange.
"""

LINES = ("#0083C9", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
DASHES = ("solid", "dash", "dot", "dashdot")
REFERENCE = "#8A8F98"
MISSING = "#8A8F98"
ONSET = "#D55E00"
NOT_FINITE = "#D55E00"
SEQUENTIAL = "Cividis"
DIVERGING = "PuOr_r"


def line(index: int) -> dict[str, str]:
    """Return colour and dash of the line with that number: the first six differ by colour, then by dash too."""
    return {"color": LINES[index % len(LINES)], "dash": DASHES[index // len(LINES) % len(DASHES)]}


def faint(colour: str, alpha: float = 0.2) -> str:
    """Return the colour, see-through.

    >>> faint("#0083C9")
    'rgba(0,131,201,0.2)'
    """
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"
