"""Licences of weights: shown before a job is accepted, and consented to where they restrict."""

from collections.abc import Iterable, Iterator

from jobs.entries import SourceEntry
from jobs.errors import InvalidInput
from jobs.recipe import Licence


def licence_of(part: str, name: str, entry: SourceEntry) -> Licence:
    """The terms of one part of a recipe."""
    return Licence(part=part, name=name, licence=entry.licence, commercial=entry.commercial)


def check_consent(licences: Iterable[Licence], *, consented: bool) -> None:
    """Raise InvalidInput where a licence forbids commercial use and the operator has not agreed."""
    for one in licences:
        if one.commercial == "forbidden" and not consented:
            raise InvalidInput(
                f"the licence of {one.part} {one.name!r} ({one.licence}) forbids commercial use",
                where=one.part,
                remedy="choose another, or let the operator agree to its terms by "
                "FEWSTEP_ALLOW_NONCOMMERCIAL=true",
            )


def licence_notes(licences: Iterable[Licence]) -> Iterator[str]:
    """What a submitter should know of the licences: those that restrict or say nothing."""
    for one in licences:
        if one.commercial == "forbidden":
            yield (
                f"{one.part} {one.name!r} ({one.licence}): its licence forbids commercial use, "
                "and these pictures are made with it"
            )
        elif one.commercial == "unknown":
            yield (
                f"{one.part} {one.name!r}: whether its licence ({one.licence}) allows commercial "
                "use is not known"
            )
