"""Images whose prompt holds a text: the rows are read page by page, a bounded number at a time."""

from jobs.extent import Block, Extent
from jobs.job import PAGE_ROWS
from jobs.spool import RowPages
from jobs.store import Store

#: Pages of rows that one search reads; it goes on from where it stopped.
SCAN_PAGES = 20


def search_images(
    store: Store, extent: Extent, text: str, *, first: int, limit: int
) -> tuple[list[int], int | None]:
    """Up to `limit` images from `first` on, upper and lower case alike, and where to go on.

    None: all rows were read. Few or none may be found although there is more to read. Raises
    NotFound where the rows are gone.
    """
    if first >= extent.images:
        return [], None
    found, after = _search(store, extent, extent.block_of(first), text, first, limit)
    return found, after if after < extent.images else None


def _search(
    store: Store, extent: Extent, block: Block, text: str, first: int, limit: int
) -> tuple[list[int], int]:
    """The same within one block."""
    wanted, found = text.casefold(), list[int]()
    # One for all pages: a template is read once.
    read, start = RowPages(store).rows, block.spot(first)[0]
    stop = min(block.stop_row, (start // PAGE_ROWS + SCAN_PAGES) * PAGE_ROWS)
    for base in range(start, stop, PAGE_ROWS):
        rows = block.rows(extent.job, base, min(base + PAGE_ROWS, stop), read)
        for number, row in enumerate(rows, start=base):
            if wanted not in row.prompt.casefold():
                continue
            own = block.images_of(number)
            found += range(max(first, own.start), own.stop)[: limit - len(found)]
            if len(found) == limit:
                return found, found[-1] + 1
    return found, block.images_of(stop).start
