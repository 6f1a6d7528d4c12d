"""The tiny model's card: the measurements as Markdown, put between the card's markers."""

from pathlib import Path
from typing import Any

from workers.tiny.captions import VALUES
from workers.tiny.shipping import write_whole

_BEGIN, _END = "<!-- table -->", "<!-- /table -->"
_COLUMNS = (*VALUES, "all", "held_out")
_STYLE_COLUMNS = ("hollow", "shape", "all")


def _cells(row: dict[str, Any], columns: tuple[str, ...]) -> list[str]:
    """Per cents with standard errors; a dash where nothing was measured."""
    return [
        "{:.1f} ± {:.1f}".format(*(100 * value for value in row[key])) if key in row else "-"
        for key in columns
    ]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def as_markdown(result: dict[str, Any]) -> str:
    """Both tables, with how many pictures they rest on and where they were measured."""
    rows, styled = result["rows"], result["style"]
    heads = ["", *VALUES, "all five", "all five, held-out pairs", "FD", "ms"]
    lines = [_line(heads), "|---" * len(heads) + "|"]
    for row in rows:
        milliseconds = f"{row['ms']:.0f}" if row["ms"] else "-"
        cells = [row["name"], *_cells(row, _COLUMNS), f"{row['distance']:.1f}", milliseconds]
        lines.append(_line(cells))
    lines += [
        "",
        f"{rows[0]['n']} pictures of seen pairs and {rows[0]['n_held_out']} of held-out pairs a "
        f"row, `python -m workers.tiny evaluate`, {result['machine']}.",
        "",
        f"Style and accelerator together, {styled[0]['n']} pictures a row; *outlined* is what the "
        "same net says.",
        "",
        _line(["", "outlined", "shape", "all five", "FD"]),
        "|---" * 5 + "|",
    ]
    for row in styled:
        lines.append(_line([row["name"], *_cells(row, _STYLE_COLUMNS), f"{row['distance']:.1f}"]))
    return "\n".join(lines) + "\n"


def fill_card(card: Path, table: str, copy: Path) -> None:
    """Put the tables into the card, and a copy of it beside the weights."""
    text = card.read_text()
    if _BEGIN not in text or _END not in text:
        raise ValueError(f"{card} lacks the lines {_BEGIN} and {_END}")
    before, rest = text.split(_BEGIN, 1)
    after = rest.split(_END, 1)[1]
    text = f"{before}{_BEGIN}\n{table}{_END}{after}"
    write_whole(card, text)
    write_whole(copy, text.replace("](images/", "](../../../docs/images/"))
