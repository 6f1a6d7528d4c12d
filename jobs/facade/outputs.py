"""What a batch made: a line for each request, in the output file or in the error file."""

import json
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

from jobs.facade.reading import NAME_COLUMN
from jobs.facade.values import Counts, Picture, Pictures
from jobs.items import Item, item_page
from jobs.job import Job
from jobs.layout import JobLayout
from jobs.spool import fetch_rows
from jobs.store import Store

#: Rows looked at together.
_ROWS = 200
#: Image index -> the address of its picture.
Address = Callable[[str, int], str]


def write_outputs(
    store: Store,
    job: Job,
    layout: JobLayout,
    address: Address,
    files: tuple[IO[bytes], IO[bytes]],
) -> Counts:
    """Append a job's lines to the output and the error file (`files`); how many of which."""
    good = bad = 0
    for row, custom_id, items in _requests(store, job, layout):
        made = all(item.status == "ok" for item in items)
        answer = _answer(job, items, address) if made else None
        line = {
            "id": f"batch_req_{job.id}_{row}",
            "custom_id": custom_id,
            "response": _response(job, row, 200, answer) if answer else None,
            "error": None,
        }
        if not made:
            line |= _failure(job, row, items)
        files[0 if made else 1].write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        good, bad = good + made, bad + (not made)
    return Counts(total=good + bad, completed=good, failed=bad)


def pictures_of(job: Job, pictures: list[Picture]) -> Pictures:
    """The body of a good answer."""
    return Pictures(
        created=int(time.time()),
        data=tuple(pictures),
        output_format=job.format,
        size=f"{job.recipe.width}x{job.recipe.height}",
    )


def failure_of(items: list[Item]) -> str:
    """Why a request has not all its pictures."""
    failed = [item for item in items if item.status == "failed"]
    if not failed:
        return "it was ended before its pictures were made"
    return f"{len(failed)} of {len(items)} pictures could not be made: {failed[0].error}"[:500]


def _requests(store: Store, job: Job, layout: JobLayout) -> Iterator[tuple[int, str, list[Item]]]:
    """Row, custom_id and images of every line, in the order of the rows."""
    for first in range(0, job.rows.count, _ROWS):
        stop = min(first + _ROWS, job.rows.count)
        rows = fetch_rows(store, job, first, stop)
        items = _items(store, layout, job, first * job.repeats, stop * job.repeats)
        for number, row in enumerate(rows, start=first):
            at = (number - first) * job.repeats
            name = str(row.extra.get(NAME_COLUMN, ""))
            yield number, name, items[at : at + job.repeats]


def _items(store: Store, layout: JobLayout, job: Job, first: int, stop: int) -> list[Item]:
    found: list[Item] = []
    while first < stop:
        page = item_page(store, layout, job, first=first, limit=stop - first)
        found += page.items
        first += len(page.items)
    return found


def _answer(job: Job, items: list[Item], address: Address) -> dict[str, Any]:
    pictures = [
        Picture(url=address(job.id, item.image), seed=item.seed, sha256=item.sha256)
        for item in items
    ]
    return pictures_of(job, pictures).model_dump(mode="json", exclude_none=True)


def _response(job: Job, row: int, status: int, body: dict[str, Any]) -> dict[str, Any]:
    return {"status_code": status, "request_id": f"{job.id}-{row}", "body": body}


def _failure(job: Job, row: int, items: list[Item]) -> dict[str, Any]:
    message = failure_of(items)
    if not any(item.status == "failed" for item in items):
        return {"error": {"code": "batch_cancelled", "message": message}}
    error = {"message": message, "type": "server_error", "param": None, "code": "render_failed"}
    return {"response": _response(job, row, 500, {"error": error})}
