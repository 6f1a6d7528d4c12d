"""The client's verbs that mend, extend, thin out and check a dataset."""

from typing import Any

from jobs import client_calls as calls
from jobs.client_async_wire import AsyncWire
from jobs.client_upload import Prompts, open_upload
from jobs.client_wire import Wire
from jobs.job import ExtensionRequest, Submission
from jobs.original import Original
from jobs.sources.reading import Reading
from jobs.templates.expansion import Expansion


class Repairs:
    """A part of `Client`."""

    _wire: Wire

    def retry_failed(
        self, job_id: str, *, unfinished: bool = False, idempotency_key: str | None = None
    ) -> Submission:
        """Render the images of an ended job that have no picture again; the retry's own id.

        `unfinished`: also those that a cancelled or stopped job never rendered. While a retry
        runs it is that one (`created` is false). Raises Conflict where nothing is to be retried.
        """
        return self._wire.run(
            calls.retry_failed(job_id, unfinished=unfinished, key=idempotency_key)
        )

    def extend(
        self,
        job_id: str,
        *,
        repeats: int = 0,
        rows: Prompts | None = None,
        source: Reading | None = None,
        expand: Expansion | None = None,
        idempotency_key: str | None = None,
    ) -> Submission:
        """Add repeats, or rows, to a complete dataset as new shards; the extension's own id.

        `rows` are what `submit` takes; `source` says how a prompt file is read, and `expand` how
        rows that are templates become rows. Raises Conflict where the dataset is not complete or
        another round of it runs.
        """
        if rows is None:
            return self._wire.run(calls.extend(job_id, repeats, None, idempotency_key))
        asked = ExtensionRequest(repeats=repeats, source=source or Reading(), expand=expand)
        with open_upload(asked, rows) as upload:
            return self._wire.run(calls.extend(job_id, repeats, upload, idempotency_key))

    def drop(
        self, job_id: str, where: str, *, dry_run: bool = False, idempotency_key: str | None = None
    ) -> dict[str, Any]:
        """Take the rows of which `where` is true out of a complete dataset; how many, and examples.

        `dry_run`: only look. Raises InvalidInput for a condition that does not read.
        """
        call = calls.drop(job_id, where, dry_run=dry_run, key=idempotency_key)
        return self._wire.run(call)

    def undo_drop(self, job_id: str) -> dict[str, Any]:
        """Put back what the last drop took out, within a day; raises Conflict where it cannot."""
        return self._wire.run(calls.undo_drop(job_id))

    def original(self, job_id: str, key: str) -> Original:
        """The whole row of the image named `key` in its shard, and its job; raises NotFound."""
        return self._wire.run(calls.original(job_id, key))


class AsyncRepairs:
    """The same of `AsyncClient`."""

    _wire: AsyncWire

    async def retry_failed(
        self, job_id: str, *, unfinished: bool = False, idempotency_key: str | None = None
    ) -> Submission:
        """Render the images of an ended job that have no picture again; the retry's own id."""
        call = calls.retry_failed(job_id, unfinished=unfinished, key=idempotency_key)
        return await self._wire.run(call)

    async def extend(
        self,
        job_id: str,
        *,
        repeats: int = 0,
        rows: Prompts | None = None,
        source: Reading | None = None,
        expand: Expansion | None = None,
        idempotency_key: str | None = None,
    ) -> Submission:
        """Add repeats, or rows, to a complete dataset as new shards; the extension's own id.

        `rows` are what `submit` takes; `source` says how a prompt file is read, and `expand` how
        rows that are templates become rows. Raises Conflict where the dataset is not complete or
        another round of it runs.
        """
        if rows is None:
            return await self._wire.run(calls.extend(job_id, repeats, None, idempotency_key))
        asked = ExtensionRequest(repeats=repeats, source=source or Reading(), expand=expand)
        with open_upload(asked, rows) as upload:
            return await self._wire.run(calls.extend(job_id, repeats, upload, idempotency_key))

    async def drop(
        self, job_id: str, where: str, *, dry_run: bool = False, idempotency_key: str | None = None
    ) -> dict[str, Any]:
        """Take the rows of which `where` is true out of a complete dataset; how many, and examples.

        `dry_run`: only look. Raises InvalidInput for a condition that does not read.
        """
        call = calls.drop(job_id, where, dry_run=dry_run, key=idempotency_key)
        return await self._wire.run(call)

    async def undo_drop(self, job_id: str) -> dict[str, Any]:
        """Put back what the last drop took out, within a day; raises Conflict where it cannot."""
        return await self._wire.run(calls.undo_drop(job_id))

    async def original(self, job_id: str, key: str) -> Original:
        """The whole row of the image named `key` in its shard, and its job; raises NotFound."""
        return await self._wire.run(calls.original(job_id, key))
