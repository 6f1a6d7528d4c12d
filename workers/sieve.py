"""The sieve: a job's filters on its pictures, between the device and the encoders."""

import logging
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from jobs.catalog import Catalog, load_catalog
from jobs.duplicates import near_duplicates
from jobs.errors import BadConfiguration
from jobs.filter_columns import FILTER_MS, MARKS, PHASH, SEED_TRY, TURNED_AWAY, score_column
from jobs.filters import JobFilter
from jobs.job import Job, with_try
from jobs.records import TRACEBACK_MAX, StageTimes
from jobs.rows import Scalar
from jobs.settings import Settings
from workers.batches import Flight, Place, Tried
from workers.depot import Depot
from workers.device_faults import DeviceLost, is_sticky
from workers.duplicate import Duplicate
from workers.filter_calls import BoundedCalls
from workers.filter_kinds import load_score
from workers.loaded_filter import ALIKE, Loaded
from workers.perceptual_hash import perceptual_hash
from workers.rendered import Rendered

log = logging.getLogger(__name__)


@dataclass
class _Reading:
    """What the filters say of one picture."""

    scores: dict[str, float | None] = field(default_factory=dict)
    hash: int | None = None
    #: Why one of them could not say anything: error and traceback.
    trouble: tuple[str, str] | None = None
    ms: float = 0.0


class Sieve:
    """Scores pictures and decides what becomes of them. One thread, the device's, calls it.

    A filter is loaded when a job first asks for it. One that raises, or gives no answer within
    `filter_timeout_s`, fails the images that it was asked about, and nothing else.
    """

    def __init__(self, settings: Settings, moved: Callable[[], None]) -> None:
        self._settings = settings
        self._moved = moved
        self._catalog: Catalog | None = None
        self._loaded: dict[str, Loaded] = {}

    def sift(self, places: Sequence[Place], images: Sequence[Rendered]) -> list[Rendered | None]:
        """What goes on to be written of each image of a batch; None: it was put back, to be tried
        with its next seed.

        A picture that is turned away for good goes on too, as what it is. Raises DeviceLost where a
        filter found the device broken: that says nothing of any picture.
        """
        asked = [n for n, place in enumerate(places) if place.flight.work.job.filters]
        if not asked:
            return [*images]
        readings = {n: _Reading() for n in asked}
        wanted: dict[str, tuple[JobFilter, list[int]]] = {}
        for n in asked:
            for one in places[n].flight.work.job.filters if images[n].pixels is not None else ():
                wanted.setdefault(one.name, (one, []))[1].append(n)
        for one, some in wanted.values():
            self._read(one, [(readings[n], places[n], images[n]) for n in some])
        return [
            _decided(place, image, readings[n]) if n in readings else image
            for n, (place, image) in enumerate(zip(places, images, strict=True))
        ]

    def _read(self, asked: JobFilter, some: Sequence[tuple[_Reading, Place, Rendered]]) -> None:
        begun = time.perf_counter()
        pictures = np.stack([image.pixels for _, _, image in some if image.pixels is not None])
        prompts = [place.image.row.prompt for _, place, _ in some]
        try:
            if asked.kind == "duplicate":
                for (reading, _, _), pixels in zip(some, pictures, strict=True):
                    reading.hash = perceptual_hash(pixels)
            else:
                scores = self._filter(asked.name).scores(pictures, prompts)
                for (reading, _, _), score in zip(some, scores, strict=True):
                    reading.scores[asked.name] = score
        except Exception as error:
            if len(some) > 1 and not isinstance(error, ALIKE) and not _broke_device(error):
                # One picture that it cannot take must not cost its neighbours theirs.
                for one in some:
                    self._read(asked, [one])
                return
            _told(asked.name, [reading for reading, _, _ in some], error)
        self._moved()
        passed = (time.perf_counter() - begun) * 1e3 / len(some)
        for reading, _, _ in some:
            reading.ms += passed

    def _filter(self, name: str) -> Loaded:
        """The filter of this name in this renderer's own catalog; raises BadConfiguration."""
        if name not in self._loaded:
            settings = self._settings
            if self._catalog is None:
                self._catalog = load_catalog(
                    settings.catalog, allow_noncommercial=settings.allow_noncommercial
                )
            entry = self._catalog.filters.get(name)
            if entry is None:
                raise BadConfiguration(
                    f"this renderer's catalog has no filter {name!r}",
                    where=str(settings.catalog or "the shipped catalog"),
                    remedy="set the same FEWSTEP_CATALOG everywhere",
                )
            calls = BoundedCalls(name, settings.filter_timeout_s, self._moved)
            self._loaded[name] = Loaded(calls, lambda: load_score(entry, Depot.of(settings)))
        return self._loaded[name]


def _told(name: str, readings: Sequence[_Reading], error: Exception) -> None:
    """A filter is not our code: whatever it raises stands in the rows of its images."""
    if _broke_device(error):
        raise DeviceLost(f"the device failed in the filter {name!r}: {error}"[:300]) from error
    log.warning("filter_failed name=%s images=%s error=%s", name, len(readings), error)
    told = f"the filter {name!r} failed: {error}"[:500]
    trace = "".join(traceback.format_exception(error))[-TRACEBACK_MAX:]
    for reading in readings:
        reading.trouble = (told, trace)


def _broke_device(error: Exception) -> bool:
    return isinstance(error, RuntimeError) and is_sticky(error)


def settle(flight: Flight) -> None:
    """Decide about near-duplicates within a unit whose images are all there.

    Afterwards some of its images may be on their way again.
    """
    job = flight.work.job
    rule = next((one for one in job.filters if one.kind == "duplicate"), None)
    places = sorted(flight.hashes)
    if rule is None or rule.at_least is None or not places:
        return
    hashes = [flight.hashes[at] for at in places]
    found, apart = near_duplicates(hashes, int(rule.at_least) - 1)
    close = [n for n in range(len(places)) if found[n] >= 0]
    again = [n for n in close if rule.policy == "retry" and _may_try(job, flight, places[n])]
    for n in again:
        _try_again(job, flight, places[n], rule.name)
    for n in close if not again else ():
        tried = flight.tried[places[n]]
        if rule.policy != "keep":
            tried.turned_away.append(rule.name)
        flight.duplicates[tried.image.index] = Duplicate(
            rule.name,
            flight.work.layout.sample(flight.work.images[places[int(found[n])]].index),
            int(apart[n]),
            rule.policy != "keep",
            ",".join(tried.turned_away),
        )


def _may_try(job: Job, flight: Flight, at: int) -> bool:
    return len(flight.tried[at].turned_away) + 1 < job.max_tries


def _try_again(job: Job, flight: Flight, at: int, reason: str) -> None:
    tried = flight.tried[at]
    tried.turned_away.append(reason)
    tried.image = with_try(job, tried.image, tried.image.seed_try + 1)
    flight.put_back(at)


def _decided(place: Place, image: Rendered, reading: _Reading) -> Rendered | None:
    flight, at = place.flight, place.at
    job = flight.work.job
    tried = flight.tried.setdefault(at, Tried(place.image, place.group))
    tried.times = added(tried.times, image.times)
    tried.filter_ms += reading.ms
    flight.filter_ms += reading.ms
    if image.pixels is not None and reading.trouble is not None:
        error, trace = reading.trouble
        image = replace(image, pixels=None, error=error, kind="filter", traceback=trace)
    marks, reason = _verdict(job.filters, image, reading)
    if reason and _retries(job, reason) and _may_try(job, flight, at):
        _try_again(job, flight, at, reason)
        return None
    if reason:
        tried.turned_away.append(reason)
        if image.pixels is not None:
            image = replace(image, error=f"rejected:{reason}", kind="rejected")
    elif reading.hash is not None and image.pixels is not None:
        flight.hashes[at] = reading.hash
    return replace(image, times=tried.times, filtered=_columns(tried, reading, marks))


def _verdict(
    filters: Sequence[JobFilter], image: Rendered, reading: _Reading
) -> tuple[list[str], str]:
    """Who only marks the picture, and who turns it away: the first one; "" where nobody does."""
    if image.pixels is None:
        return [], image.kind if image.kind in ("nan", "flat") else ""
    missed = [
        one
        for one in filters
        if one.kind != "duplicate" and not one.passes(reading.scores.get(one.name))
    ]
    marks = [one.name for one in missed if one.policy == "keep"]
    return marks, next((one.name for one in missed if one.policy != "keep"), "")


def _retries(job: Job, reason: str) -> bool:
    """Whether an image is tried again for it; broken pictures are, where any filter says so."""
    names = [one.name for one in job.filters if one.policy == "retry"]
    return bool(names) if reason in ("nan", "flat") else reason in names


def _columns(tried: Tried, reading: _Reading, marks: Sequence[str]) -> dict[str, Scalar]:
    found: dict[str, Scalar] = {
        SEED_TRY: tried.image.seed_try,
        TURNED_AWAY: ",".join(tried.turned_away),
        MARKS: ",".join(marks),
        FILTER_MS: tried.filter_ms,
    }
    if reading.hash is not None:
        found[PHASH] = f"{reading.hash:016x}"
    return found | {score_column(name): score for name, score in reading.scores.items()}


def added(one: StageTimes, other: StageTimes) -> StageTimes:
    """The times of both together."""
    return StageTimes(
        **{name: getattr(one, name) + getattr(other, name) for name in StageTimes.model_fields}
    )
