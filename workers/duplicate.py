"""A picture that resembles an earlier one of its unit, and what its record says then."""

from dataclasses import dataclass

from jobs.filter_columns import DUPLICATE_OF, MARKS, TURNED_AWAY, score_column
from jobs.records import Picture


@dataclass(frozen=True)
class Duplicate:
    """A picture resembles an earlier one of its unit."""

    #: The filter, the earlier picture's key, and by how many bits their hashes differ.
    name: str
    of: str
    distance: int
    #: Whether it is turned away for it, and what the row says of all its image's pictures then.
    rejected: bool
    turned_away: str


def as_duplicate(picture: Picture, found: Duplicate) -> Picture:
    """The picture with that in its record; one that has failed since stays as it is."""
    record = picture.record
    if record.status != "ok":
        return picture
    filtered = record.filtered | {
        DUPLICATE_OF: found.of,
        score_column(found.name): float(found.distance),
        TURNED_AWAY: found.turned_away,
    }
    news: dict[str, object] = {"filtered": filtered}
    if found.rejected:
        error = f"rejected:{found.name}"
        news |= {"status": "failed", "error": error, "error_kind": "rejected"}
    else:
        marks = [one for one in str(filtered.get(MARKS) or "").split(",") if one]
        filtered[MARKS] = ",".join([*marks, found.name])
    return picture.model_copy(update={"record": record.model_copy(update=news)})
