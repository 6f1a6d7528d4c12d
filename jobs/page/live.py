"""A job's events as pieces of its page: progress, buttons, and the cells of its sheet."""

import json
from collections.abc import AsyncIterator, Callable

from sse_starlette import ServerSentEvent

from jobs.api.sse import EventFan
from jobs.job import JobView
from jobs.page.rendering import fragment
from jobs.page.sheet import AFTER, Sheet


async def pieces(
    fan: EventFan,
    sheet: Sheet,
    cursor: str,
    view: JobView,
    look: Callable[[], JobView],
    submit: bool,
) -> AsyncIterator[ServerSentEvent]:
    """Events named `progress`, `actions` and `cells` with HTML, and `end` at last.

    `submit`: whether who looks may change the job's course.
    """
    shown = ""
    async for sent in fan.stream(sheet.queue_id, cursor, view, look):
        if sent.event == "progress":
            now = JobView.model_validate_json(sent.data or "{}")
            yield _piece("progress", sent, fragment("progress.html", view=now))
            actions = fragment("actions.html", view=now, may_submit=submit)
            if actions != shown:
                shown = actions
                yield _piece("actions", sent, actions)
        elif sent.event in AFTER:
            cells = sheet.after(sent.event, json.loads(sent.data or "{}").get("unit", ""))
            if cells:
                yield _piece(
                    "cells", sent, fragment("cells.html", sheet=sheet, cells=cells, oob=True)
                )
        elif sent.event == "end":
            yield sent


def _piece(name: str, sent: ServerSentEvent, html: str) -> ServerSentEvent:
    return ServerSentEvent(data=html, event=name, id=sent.id, retry=sent.retry)
