"""Prompt files that lie in S3 already: only where the operator allows, and only as they were."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import SpooledTemporaryFile
from typing import IO, Any, BinaryIO, cast

from jobs.errors import BadConfiguration, Conflict, InvalidInput, NotFound, TooLarge
from jobs.s3_client import BRIEF, S3Client, is_taken, s3_clients
from jobs.settings import Settings

#: What is kept in memory of a file; the rest is on disk.
_IN_MEMORY = 1_000_000
_CHUNK = 1 << 20
#: Files that a folder of prompts may have.
MAX_FILES = 10_000
_HERE = "prompts_from"


class References:
    """Fetches `s3://bucket/key` for one tenant, from the store's own endpoint with its keys."""

    def __init__(self, settings: Settings, limit: int) -> None:
        self._settings, self._limit = settings, limit
        self._lock = threading.Lock()
        self._client: S3Client | None = None

    @contextmanager
    def opened(self, uri: str, etag: str | None, tenant: str) -> Iterator[BinaryIO]:
        """The file's content, from its start; deleted on the way out.

        The version is pinned: `etag`, or that which lies there now. Raises InvalidInput for a
        place that is not allowed or has no such file, Conflict where it is another version,
        TooLarge, Unreachable.
        """
        bucket, key = self._checked(uri, tenant)
        client = self._connected()
        head = self._ask(lambda: client.head_object(Bucket=bucket, Key=key), uri)
        pinned = etag.strip('"') if etag is not None else str(head["ETag"]).strip('"')
        if head["ContentLength"] > self._limit:
            raise TooLarge(f"the file is larger than {self._limit} bytes", where=_HERE)
        with SpooledTemporaryFile(max_size=_IN_MEMORY) as file:
            self._ask(lambda: _fetch(client, bucket, key, pinned, file), uri)
            file.seek(0)
            yield cast(BinaryIO, file)

    def listed(self, uri: str, tenant: str) -> list[str]:
        """The names of the files under `uri`, which ends in a slash, in order.

        Raises as `opened` does, and TooLarge where they are more than `MAX_FILES`.
        """
        bucket, folder = self._checked(uri, tenant)
        client = self._connected()
        found: list[str] = []
        more: dict[str, str] = {}
        while True:
            page = self._ask(
                lambda more=more: client.list_objects_v2(Bucket=bucket, Prefix=folder, **more), uri
            )
            found += [entry["Key"].removeprefix(folder) for entry in page.get("Contents", ())]
            if len(found) > MAX_FILES:
                raise TooLarge(f"the folder has more than {MAX_FILES} files", where=_HERE)
            if not page.get("IsTruncated"):
                return sorted(name for name in found if name and not name.endswith("/"))
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def close(self) -> None:
        """Let go of the connections."""
        if self._client is not None:
            self._client.close()

    def _connected(self) -> S3Client:
        with self._lock:
            if self._client is None:
                quick, self._client = s3_clients(self._settings)
                quick.close()
            return self._client

    def _checked(self, uri: str, tenant: str) -> tuple[str, str]:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        plain = all(part not in ("", ".", "..") for part in key.removesuffix("/").split("/"))
        if not uri.startswith("s3://") or not bucket or not plain:
            raise InvalidInput(
                f"{uri[:80]!r} names no file in S3", where=_HERE, remedy="give s3://bucket/key"
            )
        # Folders, whoever wrote them: a place of `ann` must not open one of `anna`.
        places = (one.rstrip("/") + "/" for one in self._settings.prompt_places)
        allowed = [one.replace("{tenant}", tenant) for one in places]
        ours = f"s3://{self._settings.s3_bucket}/{self._settings.s3_prefix}/"
        if not uri.startswith(tuple(allowed)) or uri.startswith(ours):
            raise InvalidInput(
                "prompt files are not read from there",
                where=_HERE,
                remedy=f"allowed: {', '.join(allowed) or 'nothing'} (FEWSTEP_PROMPT_SOURCES)",
            )
        return bucket, key

    def _ask(self, call: Any, uri: str) -> Any:
        try:
            return BRIEF.ask(call, uri[:200])
        except NotFound as error:
            raise InvalidInput("there is no such file", where=_HERE) from error
        except BadConfiguration as error:
            raise InvalidInput(
                "the API may not read this file", where=_HERE, remedy="its keys need the right"
            ) from error


def _fetch(client: S3Client, bucket: str, key: str, etag: str, file: IO[bytes]) -> None:
    try:
        reply = client.get_object(Bucket=bucket, Key=key, IfMatch=f'"{etag}"')
    except Exception as error:
        if is_taken(error):
            raise _changed(etag) from error
        raise
    # Some stores ignore the condition.
    if str(reply["ETag"]).strip('"') != etag:
        raise _changed(etag)
    file.seek(0)
    file.truncate()
    for chunk in reply["Body"].iter_chunks(_CHUNK):
        file.write(chunk)


def _changed(etag: str) -> Conflict:
    return Conflict(
        f"the file is no longer the version {etag[:80]!r}",
        where=_HERE,
        remedy="name the version that lies there now, or leave `etag` out",
    )
