"""The columns that a job's filters add to its rows."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from jobs.errors import InvalidInput
from jobs.filters import JobFilter

FilterKind = Literal["int", "float", "string"]
#: Which seed of the image's sequence the row's is: 0 the first.
SEED_TRY = "seed_try"
#: Who turned its pictures away, one word for each, in their order; and who only marked it.
TURNED_AWAY, MARKS = "turned_away", "marks"
FILTER_MS = "filter_ms"
#: Of a job that looks for near-duplicates: the picture's hash in hexadecimal digits, and the key
#: of the earlier picture that it resembles.
PHASH, DUPLICATE_OF = "phash", "duplicate_of"


def score_column(name: str) -> str:
    """Where a filter's score stands; null where the picture could not be judged."""
    return f"score_{name}"


def filter_columns(filters: Sequence[JobFilter]) -> dict[str, FilterKind]:
    """Their columns in the order in which they stand in a row; none without filters."""
    if not filters:
        return {}
    found: dict[str, FilterKind] = {
        SEED_TRY: "int",
        TURNED_AWAY: "string",
        MARKS: "string",
        FILTER_MS: "float",
    }
    if any(one.kind == "duplicate" for one in filters):
        found |= {PHASH: "string", DUPLICATE_OF: "string"}
    return found | {score_column(one.name): "float" for one in filters}


def check_columns(filters: Sequence[JobFilter], own: Iterable[str]) -> None:
    """Raise InvalidInput where a source's own column has the name of one of these."""
    for name in filter_columns(filters).keys() & {*own}:
        raise InvalidInput(
            f"the column {name!r} has the name of one that the filters write",
            where="prompts",
            remedy=f"rename it, to my_{name} for example",
        )


def rejects_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Reason -> pictures that were not taken for it: a filter's name, `nan` or `flat`.

    Of an image that was tried again, each picture that was turned away counts.
    """
    found: Counter[str] = Counter()
    for row in rows:
        turned_away = row.get(TURNED_AWAY)
        if turned_away:
            found.update(turned_away.split(","))
        elif row["error_kind"] in ("nan", "flat"):
            found[row["error_kind"]] += 1
    return dict(sorted(found.items()))


def marks_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Filter -> pictures of the dataset that miss its limit and were kept all the same."""
    words = (row.get(MARKS) or "" for row in rows if row["status"] == "ok")
    found = Counter(name for text in words for name in text.split(",") if name)
    return dict(sorted(found.items()))
