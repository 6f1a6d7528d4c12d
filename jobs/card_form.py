"""The form of a card: YAML that every loader reads the same, and tables for people."""

import json
from collections.abc import Iterable


def table(title: str, facts: Iterable[tuple[str, str]]) -> list[str]:
    """Lines of a heading and a table of names and values; none where there are no facts."""
    rows = [f"| {name} | {plain(value).replace('|', '/')} |" for name, value in facts]
    return [f"## {title}", "", "| | |", "|---|---|", *rows, ""] if rows else []


def yaml_list(name: str, values: Iterable[str]) -> list[str]:
    """Lines of a YAML list of texts."""
    return [f"{name}:", *(f"- {quoted(value)}" for value in values)]


def quoted(text: str) -> str:
    """A JSON string is a YAML string too, as long as every letter can be printed."""
    return json.dumps(plain(text), ensure_ascii=False)


def plain(text: str) -> str:
    """The text on one line, without what cannot be printed."""
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()
