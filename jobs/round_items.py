"""The images of a later round: which they are, and what became of each."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from jobs.errors import InvalidInput, NotFound
from jobs.gathering import read_tries
from jobs.items import SCAN, ItemPage, items_of, manifests_among
from jobs.layout import JobLayout
from jobs.rounds import Accepted, Round, unit_images
from jobs.spool import fetch_rows
from jobs.store import Store

#: Images of a round whose prompts one search reads.
SEARCHED = 1_000
_READERS = 16


def round_page(
    store: Store,
    layout: JobLayout,
    accepted: Accepted,
    *,
    first: int,
    limit: int,
    prompt: str = "",
) -> ItemPage:
    """Up to `limit` images of a retry or an extension, as its job has them now.

    `first` and `next` count within the round. With `prompt` those of the next `SEARCHED` whose
    prompt holds it, upper and lower case alike. Raises InvalidInput for a drop.
    """
    job, again = accepted.job, accepted.again
    assert again is not None
    if not again.renders:
        raise InvalidInput(
            f"a round of kind {again.kind!r} has no images of its own",
            where=again.id,
            remedy=f"ask for those of its job, {again.job}",
        )
    scanned = (first // again.shard_images + SCAN) * again.shard_images
    stop = min(first + (SEARCHED if prompt else limit), scanned, again.images)
    places = picked(store, layout, accepted, range(first, stop))
    items = {one.image: one for one in items_of(store, layout, job, sorted(places.values()))}
    wanted = prompt.casefold()
    found = [
        (place, items[image])
        for place, image in places.items()
        if wanted in items[image].prompt.casefold()
    ]
    if len(found) > limit:
        found = found[:limit]
        stop = found[-1][0] + 1
    return ItemPage(
        items=tuple(item for _, item in found), next=stop if stop < again.images else None
    )


def picked(
    store: Store, layout: JobLayout, accepted: Accepted, places: Sequence[int]
) -> dict[int, int]:
    """Place in a round -> image of the job; once a retry has ended, of those it came to alone."""
    again = accepted.again
    assert again is not None
    if again.block:
        first = again.block.first_image
        return {place: first + place for place in places}
    shards = sorted({place // again.shard_images for place in places})
    try:
        found = _listed(store, accepted, again, shards)
    except NotFound:
        # Its list is deleted when it ends: what it committed tells.
        found = _committed(store, layout, again, shards)
    return {place: found[place] for place in places if place in found}


def _listed(
    store: Store, accepted: Accepted, again: Round, shards: Sequence[int]
) -> dict[int, int]:
    found = dict[int, int]()
    for shard in shards:
        _, images = unit_images(accepted, str(shard), partial(fetch_rows, store), store)
        first = shard * again.shard_images
        found |= {first + at: image.index for at, image in enumerate(images)}
    return found


def _committed(
    store: Store, layout: JobLayout, again: Round, shards: Sequence[int]
) -> dict[int, int]:
    units = manifests_among(store, layout, [again.first_shard + shard for shard in shards])
    found = dict[int, int]()
    with ThreadPoolExecutor(_READERS) as readers:
        tries = list(readers.map(partial(read_tries, store, layout), units))
    for unit, some in zip(units, tries, strict=True):
        first = unit.first - again.first_place
        # What was dropped since has no row any more.
        images = sorted([*(image for image, _ in some), *unit.dropped])
        found |= {first + at: image for at, image in enumerate(images)}
    return found
