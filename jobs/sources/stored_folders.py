"""Prompt files in a folder of S3, one after another, in the order of their names."""

from collections.abc import Iterator

from jobs.errors import InvalidInput
from jobs.references import References
from jobs.sources.reading import SUFFIXES, Reading, format_of, read_records
from jobs.sources.records import Record


def folder_records(
    references: References, uri: str, tenant: str, reading: Reading
) -> Iterator[Record]:
    """The records of every prompt file under `uri`, which ends in a slash; one on disk at a time.

    Raises what `References.opened` raises, and InvalidInput where there is none.
    """
    found = [(name, kind) for name in references.listed(uri, tenant) if (kind := format_of(name))]
    if not found:
        raise InvalidInput(
            "there is no prompt file in the folder",
            where="prompts_from",
            remedy=f"known kinds: {', '.join(SUFFIXES)}",
        )
    for name, kind in found:
        with references.opened(f"{uri}{name}", None, tenant) as file:
            yield from read_records(file, kind, name[-80:], reading)
