"""A comparison as one page that needs nothing else: table, plots, and a grid of pictures."""

import base64
import io
from collections.abc import Sequence
from html import escape
from itertools import islice

from PIL import Image

from fewstep.compare_pictures import shown
from fewstep.compare_plot import plot
from fewstep.compare_table import Comparison, Line, mean, number, percent

#: Pictures of each row in the grid, and how wide one is at most, in pixels.
COLUMNS, EDGE = 8, 192

_STYLE = """
:root { color-scheme: light dark;
  --ink: #1c1c1a; --dim: #6d6d66; --line: #d9d8d0; --paper: #fdfdfb }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ecebe4; --dim: #a3a299; --line: #3b3b37; --paper: #171715 }
}
body { background: var(--paper); color: var(--ink); margin: 2.5rem auto; max-width: 72rem;
  padding: 0 1.25rem; font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem; font-weight: 600; margin: 0 0 .25rem }
h2 { font-size: 1.05rem; font-weight: 600; margin: 2.5rem 0 .75rem }
p, li { color: var(--dim); max-width: 46rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap }
th { font-weight: 500; color: var(--dim); border-bottom: 1px solid var(--ink) }
th, td { padding: .3rem .8rem .3rem 0; text-align: right }
td { border-bottom: 1px solid var(--line) }
th:first-child, td:first-child { text-align: left }
.plots { display: flex; flex-wrap: wrap; gap: 1.5rem }
.grid td { border: 0; padding: 2px; text-align: left }
.grid td:first-child { padding-right: 1rem; white-space: normal; min-width: 11rem }
img { display: block; width: 96px; height: 96px; object-fit: cover; border-radius: 3px }
svg text { fill: var(--dim); font: 11px system-ui, sans-serif }
svg .axis { stroke: var(--line) }
"""


def page(found: Comparison) -> str:
    """The page, as HTML."""
    title = f"{found.facts.get('model', '')}: few steps beside many"
    facts = " · ".join(f"{name}: {value}" for name, value in found.facts.items())
    notes = "".join(f"<li>{escape(one.replace('**', ''))}</li>" for one in found.notes)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
        f"<h1>{escape(title)}</h1><p>{escape(facts)}</p>"
        f'<h2>Quality over time</h2><div class="plots">{_plots(found)}</div>'
        f'<h2>Figures</h2><div class="wide">{_table(found)}</div><ul>{notes}</ul>'
        f"<h2>The same prompts, the same seeds</h2>"
        f'<div class="wide">{_grid(found.lines)}</div></html>'
    )


def _plots(found: Comparison) -> str:
    frechet = [(line, line.scores.frechet) for line in found.lines]
    agreed = [(line, line.scores.agreement) for line in found.lines]
    scale = 100 if found.scorer.share else 1
    drawn = [
        _plot("Frechet distance (less is better)", frechet),
        _plot(
            "Agreement with the prompt (more is better)" + ", per cent" * found.scorer.share,
            [(line, None if one is None else one.mean * scale) for line, one in agreed],
        ),
    ]
    return "".join(drawn)


def _plot(title: str, values: Sequence[tuple[Line, float | None]]) -> str:
    groups: dict[str, list[tuple[float, float, str]]] = {}
    for line, value in values:
        if value is not None:
            steps = str(line.rendered.timing["steps"])
            groups.setdefault(line.rendered.row.group, []).append((line.device_ms, value, steps))
    return plot(title, "milliseconds of a device, for a picture", groups) if groups else ""


def _table(found: Comparison) -> str:
    details = sorted({name for line in found.lines for name in line.scores.details})
    names = ["", "UNet calls", "agreement", *(f"{name} %" for name in details)]
    names += ["FD", "perceptual", "ms", "images/s", "MiB"]
    rows = [
        [
            line.name,
            str(line.calls),
            found.agreement(line),
            *(percent(line.scores.details.get(name)) for name in details),
            number(line.scores.frechet, 1),
            mean(line.scores.perceptual),
            number(line.device_ms, 1),
            number(line.images_per_second, 1),
            number(line.memory_mib, 0),
        ]
        for line in found.lines
    ]
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _grid(lines: Sequence[Line]) -> str:
    rows = []
    for line in lines:
        some = list(islice(shown(line.rendered.folder), COLUMNS))
        cells = "".join(
            f'<td><img alt="{escape(one.prompt)}" title="{escape(one.prompt)}" '
            f'src="{_data(Image.fromarray(one.pixels))}"></td>'
            for one in some
        )
        rows.append(f"<tr><td>{escape(line.name)}</td>{cells}</tr>")
    return f'<table class="grid">{"".join(rows)}</table>'


def _data(picture: Image.Image) -> str:
    """The picture inside the page: small ones exactly, large ones as thumbnails."""
    target, kind = io.BytesIO(), "png"
    if max(picture.size) > EDGE:
        picture.thumbnail((EDGE, EDGE))
        kind = "jpeg"
    picture.save(target, kind, **({"quality": 88} if kind == "jpeg" else {}))
    return f"data:image/{kind};base64,{base64.b64encode(target.getvalue()).decode()}"
