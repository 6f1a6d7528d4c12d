"""Shards whose claim died between tar and manifest, of a job that nobody will render on."""

import logging
import re

from jobs.commit import Arbiter, LeaseArbiter, adopt_unit
from jobs.discard import orphans
from jobs.errors import FewstepError, Unreachable
from jobs.layout import JobLayout, Unit
from jobs.rounds import Accepted, unit_images
from jobs.spool import RowPages
from jobs.store import Store

log = logging.getLogger(__name__)

_STEM = re.compile(r"(\d{5,})(?:-(\d{4,})-(\d{4,}))?")


def adopt_orphans(
    store: Store, arbiter: Arbiter, accepted: Accepted, layout: JobLayout, queue_id: str
) -> int:
    """Complete each tar without a manifest, as the next claim of its unit would; how many.

    The tar is the commit point: what was committed before a job was cancelled or stopped is kept.
    One that cannot be completed is left to be removed. Raises Unreachable.
    """
    adopted, read = 0, RowPages(store).rows
    for stem in list(orphans(store, layout)):
        unit_name = _unit_name(accepted, stem)
        if unit_name is None:
            continue
        try:
            unit, _ = unit_images(accepted, unit_name, read, store)
            lease = LeaseArbiter(arbiter, queue_id, unit_name)
            names = layout.for_unit(unit)
            adopted += adopt_unit(store, lease, accepted.job, names, unit, "-", 0) is not None
        except Unreachable:
            raise
        except FewstepError as error:
            log.warning("orphan_lost job=%s shard=%s error=%s", queue_id, stem, error)
    return adopted


def _unit_name(accepted: Accepted, stem: str) -> str | None:
    """The queue's name of the unit that a tar is of; None where it is of another round."""
    match, again, job = _STEM.fullmatch(stem), accepted.again, accepted.job
    if match is None:
        return None
    shard = int(match[1]) - (again.first_shard if again else 0)
    if not 0 <= shard < (again or job).shards:
        return None
    base = shard * job.shard_images
    first, last = int(match[2] or 0), int(match[3] or 0)
    whole = match[2] is None
    return Unit(shard=shard, first=base + first, stop=base + last + 1, whole=whole).name
