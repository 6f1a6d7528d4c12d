"""Images whose prompt holds a text: the rows are read page by page, a bounded number at a time."""

from jobs.job import PAGE_ROWS, Job
from jobs.spool import fetch_rows
from jobs.store import Store

#: Pages of rows that one search reads; it goes on from where it stopped.
SCAN_PAGES = 20


def search_images(
    store: Store, job: Job, text: str, *, first: int, limit: int
) -> tuple[list[int], int | None]:
    """Up to `limit` images from `first` on, upper and lower case alike, and where to go on.

    None: all rows were read. Few or none may be found although there is more to read. Raises
    NotFound where the rows are gone.
    """
    wanted, found = text.casefold(), list[int]()
    start = first // job.repeats
    stop = min(job.rows.count, (start // PAGE_ROWS + SCAN_PAGES) * PAGE_ROWS)
    for base in range(start, stop, PAGE_ROWS):
        rows = fetch_rows(store, job, base, min(base + PAGE_ROWS, stop))
        for number, row in enumerate(rows, start=base):
            if wanted not in row.prompt.casefold():
                continue
            images = range(max(first, number * job.repeats), (number + 1) * job.repeats)
            found += images[: limit - len(found)]
            if len(found) == limit:
                after = found[-1] + 1
                return found, after if after < job.images else None
    return found, stop * job.repeats if stop < job.rows.count else None
