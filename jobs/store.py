"""The store: one bucket of S3-compatible storage, where everything lasting is written."""

import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import IO, Any, TypeVar

from jobs.errors import BadConfiguration, FewstepError, NotFound, Unreachable
from jobs.objects import ObjectInfo, PutReply, checked_key, taken
from jobs.s3_client import (
    BRIEF,
    CLIENT_ERRORS,
    Patience,
    S3Client,
    is_lost,
    is_taken,
    s3_clients,
)
from jobs.settings import Settings
from jobs.store_check import check_bucket, honours_absent
from jobs.upload import Upload, abort_uploads

#: What an object is said to hold where its writer says nothing.
BINARY = "application/octet-stream"
_CHUNK = 1 << 20
#: Keys in one listing or deletion: what the protocol allows.
_PAGE = 1000

T = TypeVar("T")

__all__ = ["BINARY", "ObjectInfo", "PutReply", "Store"]


class Store:
    """Objects by key. Safe to share between threads, not between processes.

    Every method raises Unreachable, BadConfiguration (keys, bucket) or NotFound. Writes are
    repeated for as long as `patience` says; a reader gives up within about a minute.
    """

    def __init__(
        self,
        client: S3Client,
        bucket: str,
        address: str,
        *,
        honours_absent: bool,
        patience: Patience | None = None,
    ) -> None:
        self._client = client
        self._patience = patience or Patience()
        self.bucket = bucket
        self.address = address
        #: Whether `If-None-Match: *` is honoured; some stores ignore it without a word.
        self.honours_absent = honours_absent

    def __repr__(self) -> str:
        return f"Store({self.address}, bucket={self.bucket!r})"

    @classmethod
    def connect(
        cls, settings: Settings, *, create_bucket: bool = False, patience: Patience | None = None
    ) -> "Store":
        """Check address, keys and bucket, find out what the store honours, and be ready.

        Raises Unreachable naming the address within seconds, BadConfiguration for wrong keys or
        a missing bucket. `create_bucket` makes it where it is missing (the local stack).
        """
        address = settings.s3_endpoint or f"AWS S3 in {settings.s3_region}"
        bucket = settings.s3_bucket
        quick, steady = s3_clients(settings)
        try:
            check_bucket(quick, bucket, address, create=create_bucket)
            honoured = honours_absent(quick, bucket, f"{settings.s3_prefix}/_scratch/", address)
        finally:
            quick.close()
        return cls(steady, bucket, address, honours_absent=honoured, patience=patience)

    def close(self) -> None:
        """Let go of the connections; the store is of no use after that."""
        self._client.close()

    def put(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str = BINARY,
        metadata: Mapping[str, str] | None = None,
        if_absent: bool = False,
    ) -> PutReply:
        """Write an object whole, or not at all.

        With `if_absent` an object already there stays; it counts as stored by us where its
        metadata `token` is ours (the reply to an earlier try was lost). A store that does not
        honour the condition is asked beforehand, which two writers at once can get past.
        """
        return self._put(key, BytesIO(data), content_type, metadata, if_absent)

    def put_file(
        self,
        key: str,
        source: Path | IO[bytes],
        *,
        content_type: str = BINARY,
        metadata: Mapping[str, str] | None = None,
        if_absent: bool = False,
    ) -> PutReply:
        """Write a file as `put` does; beyond 64 MiB in parts, still whole or not at all."""
        if isinstance(source, Path):
            with source.open("rb") as body:
                return self._put(key, body, content_type, metadata, if_absent)
        return self._put(key, source, content_type, metadata, if_absent)

    def get(self, key: str) -> bytes:
        """An object's bytes; raises NotFound."""
        return self._bytes(key)

    def get_range(self, key: str, first: int, stop: int) -> bytes:
        """Bytes `first` up to `stop` of an object, fewer where it ends before; `first < stop`."""
        return self._bytes(key, Range=f"bytes={first}-{stop - 1}")

    def head(self, key: str) -> ObjectInfo | None:
        """An object's facts; None where there is none."""
        try:
            reply = self._read(key, lambda: self._client.head_object(Bucket=self.bucket, Key=key))
        except NotFound:
            return None
        return ObjectInfo.of_head(key, reply)

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        """The objects whose keys begin with `prefix`, in the order of their keys.

        `after`: only those with a greater key.
        """
        more: dict[str, Any] = {"Prefix": prefix, "MaxKeys": _PAGE}
        if after:
            more["StartAfter"] = after
        while True:
            page = self._read(
                prefix,
                partial(self._client.list_objects_v2, Bucket=self.bucket, **more),
            )
            for entry in page.get("Contents", ()):
                yield ObjectInfo.of_listing(entry)
            if not page["IsTruncated"]:
                return
            more["ContinuationToken"] = page["NextContinuationToken"]

    def folders(self, prefix: str) -> Iterator[str]:
        """Names of the folders directly under one (`prefix` ends in a slash), in their order."""
        more: dict[str, Any] = {"Prefix": prefix, "Delimiter": "/", "MaxKeys": _PAGE}
        while True:
            page = self._read(
                prefix, partial(self._client.list_objects_v2, Bucket=self.bucket, **more)
            )
            for entry in page.get("CommonPrefixes", ()):
                yield str(entry["Prefix"]).removeprefix(prefix).rstrip("/")
            if not page["IsTruncated"]:
                return
            more["ContinuationToken"] = page["NextContinuationToken"]

    def unfinished_uploads(self, prefix: str) -> tuple[int, ...]:
        """When uploads in parts that were not completed began (ms since 1970), a thousand at most.

        Nothing where the store cannot list them.
        """
        ask = partial(self._client.list_multipart_uploads, Bucket=self.bucket, Prefix=prefix)
        try:
            page = self._read(prefix, ask)
        except FewstepError as error:
            if isinstance(error, Unreachable | BadConfiguration):
                raise
            return ()
        return tuple(int(one["Initiated"].timestamp() * 1000) for one in page.get("Uploads", ()))

    def copy(
        self, source: str, target: str, *, content_type: str, metadata: Mapping[str, str]
    ) -> str:
        """Copy within the bucket, over what may be there; returns the new etag."""
        reply = self._patience.ask(
            lambda: self._client.copy_object(
                Bucket=self.bucket,
                Key=checked_key(target),
                CopySource={"Bucket": self.bucket, "Key": source},
                ContentType=content_type,
                Metadata=dict(metadata),
                MetadataDirective="REPLACE",
            ),
            self._where(source),
        )
        return str(reply["CopyObjectResult"]["ETag"]).strip('"')

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are not there are no error."""
        wanted = [*keys]
        for start in range(0, len(wanted), _PAGE):
            some = wanted[start : start + _PAGE]
            remove = partial(
                self._client.delete_objects,
                Bucket=self.bucket,
                Delete={"Objects": [{"Key": key} for key in some], "Quiet": True},
            )
            reply = self._patience.ask(remove, self._where(some[0]))
            for error in reply.get("Errors", ()):
                raise BadConfiguration(
                    f"the store did not delete it: {error.get('Code')}",
                    where=self._where(error.get("Key", "")),
                    remedy="these keys need the right to delete",
                )

    def abort_uploads(self, prefix: str, *, before_ms: int | None = None) -> int:
        """End uploads in parts under a folder that were begun before then; how many they were."""
        end = partial(abort_uploads, self._client, self.bucket, prefix, before_ms)
        return self._patience.ask(end, self._where(prefix))

    def delete_prefix(self, prefix: str) -> int:
        """Delete every object under a folder (`prefix` ends in a slash); how many they were."""
        if len(prefix) < 2 or not prefix.endswith("/"):
            raise ValueError(f"{prefix!r} is no folder")
        keys = [found.key for found in self.list(prefix)]
        self.delete(keys)
        return len(keys)

    def presign(self, key: str, seconds: int = 900) -> str:
        """An address that reads the object without keys; a secret while it lasts."""
        target = {"Bucket": self.bucket, "Key": key}
        return str(
            self._client.generate_presigned_url("get_object", Params=target, ExpiresIn=seconds)
        )

    def read_into(self, key: str, file: IO[bytes]) -> str:
        """Write an object's bytes to an open file, from its start; returns their sha256."""
        return self._read(key, lambda: self._stream(key, file))

    def download(self, key: str, path: Path) -> str:
        """Write an object to a file, whole or not at all; returns the sha256 of its bytes."""
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                digest = self.read_into(key, file)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        return digest

    def _read(self, key: str, call: Callable[[], T]) -> T:
        return BRIEF.ask(call, self._where(key))

    def _where(self, key: str) -> str:
        return f"{self.address}, {self.bucket}/{key}"

    def _bytes(self, key: str, **span: str) -> bytes:
        get = partial(self._client.get_object, Bucket=self.bucket, Key=key, **span)
        return bytes(self._read(key, lambda: get()["Body"].read()))

    def _stream(self, key: str, file: IO[bytes]) -> str:
        digest = hashlib.sha256()
        body = self._client.get_object(Bucket=self.bucket, Key=key)["Body"]
        file.seek(0)
        file.truncate()
        for chunk in body.iter_chunks(_CHUNK):
            digest.update(chunk)
            file.write(chunk)
        return digest.hexdigest()

    def _put(
        self,
        key: str,
        body: IO[bytes],
        content_type: str,
        metadata: Mapping[str, str] | None,
        if_absent: bool,
    ) -> PutReply:
        checked_key(key)
        metadata = metadata or {}
        if if_absent and not self.honours_absent and (found := self.head(key)) is not None:
            return taken(found, metadata)
        size = body.seek(0, os.SEEK_END)
        absent = if_absent and self.honours_absent
        upload = Upload(self.bucket, key, body, size, content_type, metadata, absent)
        return self._patience.ask(lambda: self._write(upload), self._where(key))

    def _write(self, upload: Upload) -> PutReply:
        try:
            return PutReply(stored=True, etag=upload.write(self._client))
        except CLIENT_ERRORS as error:
            # Also where our own write was stored and its reply lost: the token tells.
            found = self.head(upload.key) if is_taken(error) or is_lost(error) else None
            if found is None or (is_lost(error) and not taken(found, upload.metadata).stored):
                raise
            return taken(found, upload.metadata)
