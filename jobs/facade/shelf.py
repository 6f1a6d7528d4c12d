"""Files and batches of one tenant in the store: a small record each, contents beside them."""

import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import IO, TypeVar

from pydantic import ValidationError

from jobs.errors import DamagedJob, NotFound
from jobs.facade.values import BatchRecord, FileView
from jobs.recipe import Frozen
from jobs.store import Store

log = logging.getLogger(__name__)

Record = TypeVar("Record", bound=Frozen)


class Shelf:
    """Everything under `<prefix>/_openai/<tenant>/`; what is not there is NotFound."""

    def __init__(self, store: Store, prefix: str, tenant: str) -> None:
        self.store = store
        self._root = f"{prefix}/_openai/{tenant}/"

    # ---- files ----

    def add_file(self, content: IO[bytes], filename: str) -> FileView:
        """Keep an uploaded file."""
        content.seek(0, 2)
        view = FileView(
            id=new_id("file-"),
            bytes=content.tell(),
            created_at=int(time.time()),
            filename=filename,
            purpose="batch",
        )
        self.put_file(view, content)
        return view

    def put_file(self, view: FileView, content: IO[bytes]) -> None:
        """Write a file down, its record last; again with the same id it is replaced."""
        content.seek(0)
        self.store.put_file(self._content(view.id), content, content_type="application/jsonl")
        self._put(f"files/{view.id}", view)

    def file(self, file_id: str) -> FileView:
        """A file's record."""
        return self._get(f"files/{file_id}", FileView, "file", file_id)

    def files(self, after: str | None = None) -> Iterator[FileView]:
        """Files behind this id, newest first, each read when it is asked for."""
        return self._all("files/", FileView, after)

    def delete_file(self, file_id: str) -> None:
        """Delete a file; raises NotFound."""
        self.file(file_id)
        self.store.delete([f"{self._root}files/{file_id}.json", self._content(file_id)])

    @contextmanager
    def opened(self, file_id: str) -> Iterator[IO[bytes]]:
        """A file's content on local disk, from its start."""
        self.file(file_id)
        with TemporaryFile(prefix="fewstep-") as file:
            self.store.read_into(self._content(file_id), file)
            file.seek(0)
            yield file

    # ---- batches ----

    def put_batch(self, record: BatchRecord) -> None:
        """Write a batch down, over its older state."""
        self._put(f"batches/{record.view.id}", record)

    def batch(self, batch_id: str) -> BatchRecord:
        """A batch as it was last written down."""
        return self._get(f"batches/{batch_id}", BatchRecord, "batch", batch_id)

    def batches(self, after: str | None = None) -> Iterator[BatchRecord]:
        """Batches behind this id, newest first, each read when it is asked for."""
        return self._all("batches/", BatchRecord, after)

    def _content(self, file_id: str) -> str:
        return f"{self._root}content/{file_id}"

    def _put(self, name: str, record: Frozen) -> None:
        data = record.model_dump_json(indent=1).encode()
        self.store.put(f"{self._root}{name}.json", data, content_type="application/json")

    def _get(self, name: str, kind: type[Record], what: str, where: str) -> Record:
        try:
            return kind.model_validate_json(self.store.get(f"{self._root}{name}.json"))
        except NotFound as error:
            raise NotFound(f"there is no such {what}", where=where) from error
        except ValidationError as error:
            raise DamagedJob(
                f"the record of this {what} does not read as one",
                where=where,
                remedy="it was written by another version, or changed by hand",
            ) from error

    def _all(self, folder: str, kind: type[Record], after: str | None) -> Iterator[Record]:
        # Ids begin with the time at which they were made.
        keys = [found.key for found in self.store.list(f"{self._root}{folder}")][::-1]
        last = f"{self._root}{folder}{after}.json"
        first = keys.index(last) + 1 if last in keys else 0
        for key in keys[first:]:
            try:
                found = kind.model_validate_json(self.store.get(key))
            except NotFound:
                # It was deleted since it was listed.
                continue
            except ValidationError as error:
                # One that nobody can read must not hide the others.
                log.warning("record_damaged key=%s error=%s", key, error.errors()[0]["msg"])
                continue
            yield found


def new_id(kind: str) -> str:
    """A new id of this kind; later ones sort behind earlier ones."""
    return f"{kind}{time.time_ns() // 1_000_000:012x}{secrets.token_hex(6)}"
