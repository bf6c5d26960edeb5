"""A log-log picture in SVG, so that no drawing library is needed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT, MARGIN = 460, 320, 60
COLOURS = ("#1f6feb", "#d1495b", "#3a7d44", "#8a5a9e")
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """Lines over two logarithmic axes."""

    title: str
    x_title: str
    y_title: str
    lines: Mapping[str, Points]

    def svg(self, left: int) -> str:
        every = [p for points in self.lines.values() for p in points]
        (x_low, x_high), (y_low, y_high) = (_ends([p[i] for p in every]) for i in (0, 1))

        def place(point: tuple[float, float]) -> tuple[float, float]:
            across = (math.log10(point[0]) - x_low) / (x_high - x_low)
            up = (math.log10(point[1]) - y_low) / (y_high - y_low)
            return MARGIN + across * (WIDTH - MARGIN - 15), HEIGHT - MARGIN - up * (HEIGHT - MARGIN - 45)

        parts = [f'<g transform="translate({left},0)">', _text(WIDTH / 2, 20, self.title, "middle", 14)]
        for power in range(x_low, x_high + 1):
            x, y = place((10**power, 10**y_low))
            parts += [_line(x, y, x, place((10**power, 10**y_high))[1]), _text(x, y + 16, f"1e{power}", "middle")]
        for power in range(y_low, y_high + 1):
            x, y = place((10**x_low, 10**power))
            parts += [_line(x, y, place((10**x_high, 10**power))[0], y), _text(x - 6, y + 4, f"1e{power}", "end")]
        parts += [_text(WIDTH / 2, HEIGHT - 22, self.x_title, "middle"), _text(8, 36, self.y_title, "start")]
        for (name, points), colour, row in zip(self.lines.items(), COLOURS, range(9), strict=False):
            places = [place(p) for p in points]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
            parts.append(_text(MARGIN + 10, 62 + 16 * row, name, "start", 12, colour))
        return "\n".join([*parts, "</g>"])


def picture(panels: Sequence[Panel]) -> str:
    """Return an SVG document with the panels side by side."""
    size = f'width="{WIDTH * len(panels)}" height="{HEIGHT}"'
    body = "\n".join(panel.svg(WIDTH * i) for i, panel in enumerate(panels))
    style = 'font-family="sans-serif" style="background:white"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n{body}\n</svg>\n'


def _ends(values: Sequence[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _line(x: float, y: float, x_end: float, y_end: float) -> str:
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{x_end:.1f}" y2="{y_end:.1f}" stroke="#ddd"/>'


def _text(x: float, y: float, words: str, anchor: str, size: int = 11, colour: str = "#333") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{words}</text>'
