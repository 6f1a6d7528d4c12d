"""The rows of a comparison as jobs, one after the other, and what each of them came to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewstep.following import follow
from fewstep.progress import byte_bar
from fewstep.report import note
from jobs.client import Client
from jobs.comparison import Row
from jobs.errors import RenderFailed
from jobs.job import JobRequest, JobView
from jobs.states import JobState


@dataclass(frozen=True)
class Rendered:
    """A row whose dataset lies in a folder."""

    row: Row
    folder: Path
    #: What the job's `timing.json` says, and the recipe as it was resolved.
    timing: dict[str, Any]
    recipe: dict[str, Any]


def check_rows(client: Client, rows: Sequence[Row], request: JobRequest, prompts: Path) -> None:
    """See that the API would accept every row, before the first is rendered; raises as it does."""
    for row in rows:
        client.dry_run(_asked(request, row), prompts)


def _asked(request: JobRequest, row: Row) -> JobRequest:
    name = f"compare: {row.name}"[:200]
    return request.model_copy(update={"recipe": row.recipe, "name": name})


def render_rows(
    client: Client,
    rows: Sequence[Row],
    request: JobRequest,
    prompts: Path,
    out: Path,
    check: Callable[[], None],
) -> list[Rendered]:
    """Each row as a job of its own, one after the other, so that speeds stand beside one another.

    All rows have the same prompts and the same seed, so image n of each begins with the same
    noise. `check` is called while waiting; it raises where a part of the stack has died. Raises
    RenderFailed where a row's job ends otherwise than done, BadConfiguration where it cannot begin.
    """
    found = []
    for number, row in enumerate(rows):
        note(f"row {number + 1} of {len(rows)}: {row.name}")
        view = follow(client, client.submit(_asked(request, row), prompts).id, check)
        _check_end(row, view)
        folder = out / f"{number:03d}"
        with byte_bar("fetching") as bar:
            client.download(view.id, folder, bar)
        found.append(Rendered(row, folder, client.timing(view.id), dict(view.recipe)))
    return found


def _check_end(row: Row, view: JobView) -> None:
    if view.state != JobState.DONE or not view.done:
        raise RenderFailed(
            f"the row {row.name!r} {view.state}: {view.reason or 'no reason was given'}",
            where=view.id,
            remedy=f"{view.done} of {view.images} images were made; mend the cause, compare again",
        )
