"""Finding a picture's original by its key: in the store, or in a dataset that was fetched."""

import io
import json
import re
import tarfile
from pathlib import Path

import pyarrow.parquet as pq

from jobs.discard import shard_number
from jobs.errors import InvalidInput, NotFound
from jobs.exports.samples import Fetched
from jobs.items import manifests_of
from jobs.job import Job
from jobs.layout import JobLayout
from jobs.original import Original
from jobs.shard_row import json_row_of
from jobs.store import Store

#: A sample's name in its shard: shard, then four digits of index.
KEY = r"^\d{9,12}$"
_KEY = re.compile(KEY)


def read_original(store: Store, layout: JobLayout, job: Job, key: str) -> Original:
    """The picture named `key` of a job's committed shards; raises NotFound or InvalidInput."""
    shard = int(_checked(key)[:-4])
    for manifest in manifests_of(store, layout, range(shard, shard + 1)):
        data = io.BytesIO(store.get(layout.shards + manifest.parquet.name))
        table = pq.read_table(data, filters=[("key", "==", key)])
        if table.num_rows:
            return Original(job=job, row=json_row_of(table.to_pylist()[0]))
    raise _unknown(f"{job.id}/{key}")


def fetched_original(folder: Path, key: str) -> tuple[Original, bytes]:
    """The picture named `key` of a dataset that was fetched into a folder, and its file.

    Raises InvalidInput where that is no dataset, NotFound where it has no such picture.
    """
    source, shard = Fetched.at(folder), int(_checked(key)[:-4])
    for one in source.index.shards:
        path = folder / one.name
        if shard_number(path.name) != shard:
            continue
        try:
            with tarfile.open(path, "r:") as tar:
                members = {name: tar.getmember(name) for name in tar.getnames()}
                own = {name: file for name, file in members.items() if name.startswith(f"{key}.")}
                if own:
                    row = json.loads(_bytes(tar, own[f"{key}.json"]))
                    return Original(job=source.job, row=row), _bytes(tar, own[row["file_name"]])
        except (OSError, tarfile.TarError, KeyError, ValueError) as error:
            raise InvalidInput(
                f"the shard cannot be read: {error}"[:200],
                where=str(path),
                remedy="fetch the dataset again",
            ) from error
    raise _unknown(f"{folder}/{key}")


def _bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return file.read() if file else b""


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise InvalidInput(
            f"{key[:40]!r} is no key of a picture",
            where="key",
            remedy="nine digits or more, as the column key and the names in a tar have them",
        )
    return key


def _unknown(where: str) -> NotFound:
    return NotFound(
        "there is no picture of this name",
        where=where,
        remedy="`fewstep items ID --json` has the key of each picture that is committed",
    )
