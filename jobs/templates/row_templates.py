"""Rows whose prompts are templates: each becomes several, with its own columns as variables."""

from collections.abc import Iterable, Iterator

from jobs.errors import TooLarge
from jobs.rows import Row
from jobs.templates.expansion import Expansion
from jobs.templates.grammar import Lists, Scope
from jobs.templates.template import Prompts, check_letters

#: Rows that are written for a job whose rows are templates.
MAX_EXPANDED = 10_000_000


def expanded(rows: Iterable[Row], expansion: Expansion) -> Iterator[Row]:
    """What each row becomes, in order; memory is that of the lists and one row.

    In a row's prompts `{{name}}` is its column of that name, taken as it is, before a list of that
    name. Its seed and its columns go with each of what it becomes, beside the columns of its
    choices. Raises InvalidInput naming the row.
    """
    check_letters(expansion)
    lists = Lists(expansion.lists)
    total = 0
    for number, row in enumerate(rows, start=1):
        texts = {name: str(value) for name, value in row.extra.items() if value is not None}
        found = Prompts(
            row.prompt,
            row.negative_prompt,
            expansion,
            Scope(lists, texts),
            f"row {number}",
            taken=row.extra,
            salt=f"{number}:",
        )
        total += found.count
        if total > MAX_EXPANDED:
            raise TooLarge(
                f"more than {MAX_EXPANDED} rows come of these templates",
                where=f"row {number}",
                remedy="say how many of each with count; the rows of a single template are not "
                "written, so it may have more",
            )
        for made in found.rows(0, found.count):
            yield Row(
                prompt=made.prompt,
                negative_prompt=made.negative_prompt,
                seed=row.seed,
                recipe=row.recipe,
                extra={**row.extra, **made.extra},
            )
