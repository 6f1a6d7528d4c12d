"""A batch from its input file to its output: one job for each distinct recipe in it.

Nothing runs in the background: whoever looks at a batch moves it on, and two who look at once do
the same. All that it is made of has names that follow from the batch's id.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO

from jobs.catalog import Catalog
from jobs.errors import Conflict, DamagedJob, FewstepError, NoCapacity, NotFound, QuotaExceeded
from jobs.facade.outputs import Address, write_outputs
from jobs.facade.reading import Group, Read, read_batch
from jobs.facade.shelf import Shelf, new_id
from jobs.facade.values import (
    BatchFault,
    BatchFaults,
    BatchJob,
    BatchRecord,
    BatchState,
    BatchView,
    Counts,
    FileView,
    NewBatch,
)
from jobs.job import JobRequest, JobView, Submission
from jobs.rows import Row
from jobs.states import TERMINAL
from jobs.views import JobViews

Submit = Callable[[JobRequest, list[Row], str], Submission]


@dataclass(frozen=True)
class Batches:
    """One tenant's batches. `submit` accepts a job under a key; `cancel` ends one for good."""

    shelf: Shelf
    views: JobViews
    catalog: Catalog
    submit: Submit
    cancel_job: Callable[[str], None]
    address: Address

    def create(self, asked: NewBatch) -> BatchView:
        """Check the whole input, and submit its jobs if it is right.

        Where it is not, the batch is `failed` and says why; raises NotFound without input.
        """
        self.shelf.file(asked.input_file_id)
        view = BatchView(
            id=new_id("batch_"),
            input_file_id=asked.input_file_id,
            status="validating",
            created_at=int(time.time()),
            metadata=asked.metadata,
        )
        record = BatchRecord(view=view)
        self.shelf.put_batch(record)
        return self._start(record).view

    def look(self, record: BatchRecord) -> BatchView:
        """A batch as it is now; its output is written when its last job has ended."""
        view = record.view
        if view.status == "validating":
            return self._begin(record).view
        if view.status not in ("in_progress", "cancelling"):
            return view
        try:
            jobs = [self.views.view(job.id) for job in record.jobs]
            if all(job.state in TERMINAL for job in jobs):
                return self._end(record, jobs).view
        except (NotFound, DamagedJob) as error:
            return self._gone(record, error).view
        return view.model_copy(update={"request_counts": _counts(record, jobs)})

    def cancel(self, record: BatchRecord) -> BatchView:
        """End a batch; lines that are made stay. Raises Conflict for one that has ended."""
        if record.view.status == "validating":
            record = self._begin(record)
        view = self.look(record)
        if view.status not in ("in_progress", "cancelling"):
            raise Conflict(f"the batch is {view.status}", where=view.id)
        for job in record.jobs:
            self.cancel_job(job.id)
        if record.view.status == "in_progress":
            record = self._keep(record, "cancelling", cancelling_at=int(time.time()))
        return self.look(record)

    def _begin(self, record: BatchRecord) -> BatchRecord:
        # Whoever made it is still at it, or died: the same jobs are submitted again.
        try:
            return self._start(record)
        except NotFound as error:
            return self._gone(record, error)

    def _start(self, record: BatchRecord) -> BatchRecord:
        with self.shelf.opened(record.view.input_file_id) as file:
            read = read_batch(file, self.catalog)
        if read.faults:
            return self._fail(record, read.faults)
        return self._submit(record, read)

    def _submit(self, record: BatchRecord, read: Read) -> BatchRecord:
        jobs: list[BatchJob] = []
        for number, group in enumerate(read.groups):
            try:
                jobs.append(self._submit_group(record.view.id, number, group))
            except (QuotaExceeded, NoCapacity) as error:
                moved = self._moved_on(record)
                if moved is not None:
                    return moved
                for job in jobs:
                    self.cancel_job(job.id)
                return self._fail(record, [BatchFault(code=error.code, message=str(error))])
        moved = self._moved_on(record)
        if moved is not None:
            return moved
        started = BatchRecord(view=record.view, jobs=tuple(jobs))
        return self._keep(
            started,
            "in_progress",
            in_progress_at=int(time.time()),
            request_counts=Counts(total=read.lines),
        )

    def _submit_group(self, batch_id: str, number: int, group: Group) -> BatchJob:
        done = self.submit(group.request, group.rows, f"{batch_id}-{number}")
        return BatchJob(id=done.id, n=group.request.repeats, lines=len(group.rows))

    def _fail(self, record: BatchRecord, faults: list[BatchFault]) -> BatchRecord:
        moved = self._moved_on(record)
        if moved is not None:
            return moved
        errors = BatchFaults(data=tuple(faults))
        return self._keep(record, "failed", failed_at=int(time.time()), errors=errors)

    def _gone(self, record: BatchRecord, error: FewstepError) -> BatchRecord:
        """Somebody deleted or damaged what the batch is made of: it cannot go on."""
        return self._fail(record, [BatchFault(code="gone", message=str(error))])

    def _moved_on(self, record: BatchRecord) -> BatchRecord | None:
        """The batch as somebody else has meanwhile written it down; None: as it was."""
        now = self.shelf.batch(record.view.id)
        return now if now.view.status != record.view.status else None

    def _end(self, record: BatchRecord, jobs: list[JobView]) -> BatchRecord:
        """Write output and error file, and then that the batch has ended."""
        view, total = record.view, Counts()
        with TemporaryFile(prefix="fewstep-") as good, TemporaryFile(prefix="fewstep-") as bad:
            for one in jobs:
                job, layout = self.views.accepted(one.id), self.views.layout(one.id)
                done = write_outputs(self.shelf.store, job, layout, self.address, (good, bad))
                total = Counts(
                    total=total.total + done.total,
                    completed=total.completed + done.completed,
                    failed=total.failed + done.failed,
                )
            output = self._keep_file(view.id, "output", good)
            error = self._keep_file(view.id, "error", bad)
        ended: BatchState = "cancelled" if view.status == "cancelling" else "completed"
        return self._keep(
            record,
            ended,
            request_counts=total,
            output_file_id=output,
            error_file_id=error,
            **{f"{ended}_at": int(time.time())},
        )

    def _keep_file(self, batch_id: str, kind: str, content: IO[bytes]) -> str | None:
        """Put a file on the shelf, unless nothing is in it; its id."""
        size = content.tell()
        if not size:
            return None
        made = _file(batch_id, kind, size)
        self.shelf.put_file(made, content)
        return made.id

    def _keep(self, record: BatchRecord, status: BatchState, **news: object) -> BatchRecord:
        view = record.view.model_copy(update={"status": status, **news})
        kept = record.model_copy(update={"view": view})
        self.shelf.put_batch(kept)
        return kept


def _counts(record: BatchRecord, jobs: list[JobView]) -> Counts:
    """About how many lines are made: exact when the batch has ended."""
    pairs = list(zip(record.jobs, jobs, strict=True))
    return Counts(
        total=sum(one.lines for one in record.jobs),
        completed=sum(job.done // one.n for one, job in pairs),
        failed=sum(-(-job.failed // one.n) for one, job in pairs),
    )


def _file(batch_id: str, kind: str, size: int) -> FileView:
    """The record of a batch's own file: its id follows from the batch's."""
    # Behind the batch in time, and the same whoever writes it.
    digest = hashlib.sha256(f"{batch_id}|{kind}".encode()).hexdigest()
    return FileView(
        id=f"file-{batch_id.removeprefix('batch_')[:12]}{digest[:12]}",
        bytes=size,
        created_at=int(time.time()),
        filename=f"{batch_id}_{kind}.jsonl",
        purpose="batch_output",
    )
