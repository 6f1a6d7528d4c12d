"""A job's coverage as tables on standard output."""

from collections.abc import Iterator, Mapping
from typing import Any

from fewstep.report import show_pairs, show_table


def show_coverage(found: Mapping[str, Any], *, pairs: bool) -> None:
    """A line per value, then per pair of values if wanted, then why pictures are missing."""
    about: dict[str, object] = {
        "pictures": f"{found['made']} of {found['images']} images",
        "counted": f"{found['counted']} images in committed shards",
    }
    if found["uncounted"]:
        about["not counted"] = f"{found['uncounted']} pictures, by an earlier version"
    if found["many"]:
        about["no labels"] = f"{', '.join(found['many'])} (too many values, or long ones)"
    show_pairs(found["id"], about)
    if found["columns"]:
        show_table(("column", "value", "pictures", "expected"), list(_values(found)))
    if pairs and found["pairs"]:
        show_table(("columns", "values", "pictures", "expected"), list(_pairs(found)))
    whys = list(_whys(found))
    if whys:
        show_table(("why not", "images", ""), whys)


def _values(found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for column in found["columns"]:
        for number, one in enumerate(column["values"]):
            expected = "" if one["expected"] is None else f"{one['expected']}"
            name = "" if number else column["column"]
            yield name, one["value"], f"{one['made']}", expected


def _pairs(found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for pair in found["pairs"]:
        expected, made = pair["expected"], pair["made"]
        cells = {(one, other) for some in (expected, made) for one in some for other in some[one]}
        for one, other in sorted(cells):
            wanted = expected.get(one, {}).get(other, "") if expected else ""
            there = made.get(one, {}).get(other, 0)
            yield " x ".join(pair["columns"]), f"{one} x {other}", f"{there}", f"{wanted}"


def _whys(found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for why, images in found["errors"].items():
        yield why, f"{images}", "failed"
    for why, images in found["rejects"].items():
        yield why, f"{images}", "turned away"
    for why, images in found["marks"].items():
        yield why, f"{images}", "kept, and marked"
