"""Plots as SVG text: lines over log axes, labelled; written here so that a plot needs no library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 760, 460
LEFT, RIGHT, TOP, BOTTOM = 70, 190, 40, 56
COLOURS = ("#0b5fc0", "#d1495b", "#2a9d5c", "#8a4fbf", "#d98324", "#148a9c", "#6b705c", "#b5179e")
DASHES = ("", "6 3", "2 3", "8 3 2 3")
"""Lines after the eighth take the colours again, with the next dash."""

Points = Sequence[tuple[float, float]]


def chart(lines: Mapping[str, Points], *, title: str, x: str, y: str) -> str:
    """Return an SVG of lines by name over log axes x and y, with markers, ticks, labels and a legend.

    Raises ValueError where there is nothing to draw, or a number that a log axis does not have.
    """
    every = [point for points in lines.values() for point in points]
    if not every:
        raise ValueError("there is nothing to plot: no line has a point")
    for value in (value for point in every for value in point):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"a log axis has no place for {value}; allowed are finite numbers above 0")
    across = Axis([point[0] for point in every], LEFT, WIDTH - RIGHT)
    up = Axis([point[1] for point in every], HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12" fill="#1b1f24"><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        _text(LEFT, 24, title, size=15),
        *(_grid_line(across, tick, True) for tick in across.ticks()),
        *(_grid_line(up, tick, False) for tick in up.ticks()),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x, anchor="middle"),
        f'<g transform="translate(18 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)">{_text(0, 0, y, anchor="middle")}</g>',
    ]
    for number, (name, points) in enumerate(lines.items()):
        parts += _line(number, name, [(across(a), up(b)) for a, b in sorted(points)])
    return "\n".join([*parts, "</svg>"]) + "\n"


class Axis:
    """A log axis from the least to the greatest value, with a little room, to pixels."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        self.low, self.high = math.log(min(values)) - 0.1, math.log(max(values)) + 0.1
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        """Return the place of a value in pixels."""
        share = (math.log(value) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        """Return 1, 2 and 5 of every decade within the axis; the decades alone where that is too many."""
        first, last = math.floor(self.low / math.log(10)), math.ceil(self.high / math.log(10))
        steps = (1, 2, 5) if last - first <= 5 else (1,)
        every = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        return [tick for tick in every if self.low <= math.log(tick) <= self.high]


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _grid_line(axis: Axis, tick: float, upright: bool) -> str:
    place, label = axis(tick), f"{tick:g}"
    if upright:
        line = f'x1="{place}" x2="{place}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"'
        words = _text(place, HEIGHT - BOTTOM + 18, label, anchor="middle")
    else:
        line = f'x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{place}" y2="{place}"'
        words = _text(LEFT - 8, place + 4, label, anchor="end")
    return f'<line {line} stroke="#d5dae0"/>{words}'


def _line(number: int, name: str, places: Points) -> list[str]:
    colour = COLOURS[number % len(COLOURS)]
    dash = DASHES[number // len(COLOURS) % len(DASHES)]
    stroke = f'stroke="{colour}" stroke-width="2"' + (f' stroke-dasharray="{dash}"' if dash else "")
    legend = TOP + 10 + 18 * number
    path = " ".join(f"{a},{b}" for a, b in places)
    return [
        f'<polyline points="{path}" fill="none" {stroke}/>',
        *(f'<circle cx="{a}" cy="{b}" r="3" fill="{colour}"/>' for a, b in places),
        f'<line x1="{WIDTH - RIGHT + 14}" x2="{WIDTH - RIGHT + 40}" y1="{legend}" y2="{legend}" {stroke}/>',
        _text(WIDTH - RIGHT + 46, legend + 4, name),
    ]
