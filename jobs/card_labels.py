"""The card's table of labels: how many pictures there are of each value of the source's columns."""

from collections.abc import Iterable, Iterator

from jobs.card_form import plain
from jobs.coverage import Sum
from jobs.manifest import Manifest

#: Values of a column that are told one by one.
TOLD = 24


def label_facts(manifests: Iterable[Manifest]) -> Iterator[tuple[str, str]]:
    """Column and its values, the commonest first; nothing where there are no labels."""
    total = Sum()
    for one in manifests:
        total.add(one.counts, one.ok)
    counts = total.total()
    for column, values in counts.values.items():
        ordered = sorted(values.items(), key=lambda one: (-one[1], one[0]))
        shown = ", ".join(f"{_code(value)} {count}" for value, count in ordered[:TOLD])
        rest = len(ordered) - TOLD
        yield _code(column), shown + (f", {rest} more values" if rest > 0 else "")


def _code(text: str) -> str:
    """Anybody's text as it may stand in a table of Markdown."""
    bare = plain(text).replace("`", "'").replace("|", "/")
    return f"`{bare or ' '}`"
