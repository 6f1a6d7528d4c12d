"""Lines over a logarithmic axis of time, as SVG."""

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, LEFT, BELOW, TOP = 520, 340, 48, 40, 28
#: Told apart by most eyes, on light and on dark ground (after Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6d3b", "#7f7f7f")

#: Time, value, and what stands beside the point.
Point = tuple[float, float, str]


def plot(title: str, below: str, groups: Mapping[str, Sequence[Point]]) -> str:
    """One line for each group, its points labelled; times must be above 0."""
    points = [point for group in groups.values() for point in group]
    times, values = _span([math.log10(x) for x, _, _ in points]), _span([y for _, y, _ in points])
    drawn = [_axes(title, below, times, values)]
    for number, (name, group) in enumerate(groups.items()):
        colour, again = COLOURS[number % len(COLOURS)], number >= len(COLOURS)
        places = [(_x(x, times), _y(y, values), label) for x, y, label in sorted(group)]
        drawn.append(_line(places, colour, again))
        drawn.append(
            f'<text x="{LEFT + 8}" y="{HEIGHT + 18 + 15 * number}">{escape(name)}</text>'
            + _dot(LEFT - 2, HEIGHT + 14 + 15 * number, colour, again)
        )
    tall = HEIGHT + 24 + 15 * len(groups)
    return (
        f'<svg viewBox="0 0 {WIDTH} {tall}" width="{WIDTH}" height="{tall}" role="img" '
        f'aria-label="{escape(title)}">{"".join(drawn)}</svg>'
    )


def _line(places: Sequence[tuple[float, float, str]], colour: str, again: bool) -> str:
    """A group's line; dashed, with hollow dots, where its colour has been used before."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
    dashes = ' stroke-dasharray="4 3"' if again else ""
    line = f'<polyline points="{path}" fill="none" stroke="{colour}"{dashes}/>'
    dots = "".join(
        _dot(x, y, colour, again) + f'<text x="{x + 6:.1f}" y="{y - 6:.1f}">{escape(label)}</text>'
        for x, y, label in places
    )
    return line + dots


def _dot(x: float, y: float, colour: str, hollow: bool) -> str:
    fill = "none" if hollow else colour
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{fill}" stroke="{colour}"/>'


def _axes(title: str, below: str, times: tuple[float, float], values: tuple[float, float]) -> str:
    floor = HEIGHT - BELOW
    found = [f'<text x="{LEFT}" y="14" font-weight="600">{escape(title)}</text>']
    found.append(f'<line class="axis" x1="{LEFT}" y1="{floor}" x2="{WIDTH - 10}" y2="{floor}"/>')
    for value in _ticks(*values):
        y = _y(value, values)
        found.append(
            f'<line class="axis" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - 10}" y2="{y:.1f}"/>'
        )
        found.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for time in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000):
        if times[0] <= math.log10(time) <= times[1]:
            x = _x(time, times)
            found.append(f'<text x="{x:.1f}" y="{floor + 16}" text-anchor="middle">{time}</text>')
    found.append(
        f'<text x="{WIDTH - 10}" y="{floor + 32}" text-anchor="end">{escape(below)}</text>'
    )
    return "".join(found)


def _span(values: Sequence[float]) -> tuple[float, float]:
    """The values' span with a margin."""
    least, most = min(values), max(values)
    margin = (most - least) * 0.08 or abs(most) * 0.1 or 1.0
    return least - margin, most + margin


def _ticks(least: float, most: float) -> list[float]:
    step = 10 ** math.floor(math.log10(most - least))
    step = next(s for s in (step / 5, step / 2, step, 2 * step) if (most - least) / s <= 8)
    first = math.ceil(least / step)
    return [round(n * step, 10) for n in range(first, math.floor(most / step) + 1)]


def _x(time: float, span: tuple[float, float]) -> float:
    return LEFT + (math.log10(time) - span[0]) / (span[1] - span[0]) * (WIDTH - 10 - LEFT)


def _y(value: float, span: tuple[float, float]) -> float:
    return TOP + (span[1] - value) / (span[1] - span[0]) * (HEIGHT - BELOW - TOP)
