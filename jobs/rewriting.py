"""A shard written anew under another name: without some of its images, or of its pictures."""

import hashlib
import io
import re
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.dataset_index import IndexShard
from jobs.filter_columns import marks_of
from jobs.job import Job
from jobs.layout import SPLIT, JobLayout, Unit
from jobs.manifest import CONTENT_TYPE, FileFacts, Manifest, status_dict, value_counts
from jobs.shard_table import CONTENT_TYPE as PARQUET
from jobs.shard_tar import CONTENT_TYPE as TAR
from jobs.store import Store
from jobs.unit_forms import put_forms

_ANEW = re.compile(r"-r(\d{4})$")


def stem_of(shard: IndexShard) -> str:
    """The name of a shard's files without folder and ending."""
    return shard.name.removeprefix(f"{SPLIT}/").removesuffix(".tar")


def stem_anew(stem: str, number: int) -> str:
    """How it is named once round `number` has written it anew: `00003-r0002`."""
    return f"{plain_stem(stem)}-r{number:04d}"


def plain_stem(stem: str) -> str:
    """The name that its claim gave it, whoever wrote it anew since."""
    return _ANEW.sub("", stem)


def files_of(stem: str) -> tuple[str, str, str]:
    """Its tar, its parquet file, its manifest."""
    return f"{stem}.tar", f"{stem}.parquet", f"{stem}_stats.json"


def read_rows_of(store: Store, layout: JobLayout, shard: IndexShard) -> pa.Table:
    """All rows of a shard."""
    return pq.read_table(io.BytesIO(store.get(layout.root + shard.parquet.name)))


def read_table_of(store: Store, layout: JobLayout, manifest: Manifest) -> pa.Table:
    """All rows of a unit."""
    return pq.read_table(io.BytesIO(store.get(layout.shards + manifest.parquet.name)))


def rewound(file: IO[bytes]) -> IO[bytes]:
    """An open file, to be read from its start."""
    file.seek(0)
    return file


def unit_of(manifest: Manifest, anew: int | None = None) -> Unit:
    """The unit that a manifest is of, as round `anew` names its files."""
    whole = ":" not in manifest.unit
    first, stop = manifest.first, manifest.stop
    return Unit(shard=manifest.shard, first=first, stop=stop, whole=whole, anew=anew)


def rewrite_shard(
    store: Store,
    layout: JobLayout,
    job: Job,
    shard: IndexShard,
    number: int,
    rows: pa.Table,
    gone: set[int],
) -> None:
    """Write the shard without the images in `gone`, which are some of `rows`.

    The same arguments write the same bytes, so it may be repeated. What is there is copied to the
    scratch space before, and stays in its place until the index names it no more.
    """
    _put_aside(store, layout, stem_of(shard), number)
    lost = pc.is_in(rows["image"], value_set=pa.array(sorted(gone), pa.int64()))
    kept = rows.filter(pc.invert(lost))
    keys = set(rows.filter(lost)["key"].to_pylist())
    manifest = Manifest.model_validate_json(store.get(layout.root + shard.stats))
    dropped = tuple(sorted({*manifest.dropped, *rows.filter(lost)["image"].to_pylist()}))
    with tar_of(store, layout, manifest) as there:
        write_anew(store, layout, job, manifest, number, kept, keys, there, {"dropped": dropped})


@contextmanager
def tar_of(store: Store, layout: JobLayout, manifest: Manifest) -> Iterator[IO[bytes]]:
    """A unit's tar, copied to local disk."""
    with tempfile.TemporaryFile(prefix="fewstep-") as there:
        store.read_into(layout.shards + manifest.tar.name, there)
        yield there


def write_anew(
    store: Store,
    layout: JobLayout,
    job: Job,
    manifest: Manifest,
    number: int,
    rows: pa.Table,
    gone: Set[str],
    there: IO[bytes],
    news: Mapping[str, Any],
) -> Manifest:
    """Write a unit as round `number` names it, its manifest last; that manifest.

    Of its tar `there` the members whose keys are not in `gone`; of its rows `rows`. `news`: what
    else of the manifest is another.
    """
    unit = unit_of(manifest, number)
    tar, parquet, stats = files_of(layout.stem(unit))
    told = rows.to_pylist()
    made = pc.sum(pc.equal(rows["status"], "ok")).as_py() or 0
    counted = {
        "count": rows.num_rows,
        "ok": made,
        "failed": rows.num_rows - made,
        "tar": _put_tar(store, layout, job, unit, there, tar, gone),
        "parquet": _put_table(store, layout, parquet, rows),
        "status_dict": status_dict(told),
        "marks": marks_of(told),
        "counts": value_counts(told, job.rows.columns),
        "tokens_lost": pc.sum(rows["tokens_lost"]).as_py() or 0,
    }
    found = manifest.model_copy(update=counted | dict(news))
    data = found.model_dump_json(indent=1).encode()
    store.put(layout.shards + stats, data, content_type=CONTENT_TYPE)
    return found


def restore_shard(store: Store, layout: JobLayout, job: Job, stem: str, number: int) -> None:
    """Copy what drop `number` put aside back to its place, the manifest last."""
    tar, parquet, stats = files_of(stem)
    for name in (tar, parquet, stats):
        _copy(store, layout.replaced(number) + name, layout.shards + name)
    manifest = Manifest.model_validate_json(store.get(layout.shards + stats))
    anew = _ANEW.search(stem)
    unit = unit_of(manifest, int(anew[1]) if anew else None)
    if job.output != "webdataset":
        with tempfile.TemporaryFile(prefix="fewstep-") as file:
            store.read_into(layout.shards + tar, file)
            put_forms(store, layout, job, unit, file)


def _put_aside(store: Store, layout: JobLayout, stem: str, number: int) -> None:
    for name in files_of(stem):
        _copy(store, layout.shards + name, layout.replaced(number) + name)


def _copy(store: Store, source: str, target: str) -> None:
    found = store.head(source)
    metadata = found.metadata if found else {}
    kind = {"tar": TAR, "parquet": PARQUET}.get(source.rpartition(".")[2], CONTENT_TYPE)
    store.copy(source, target, content_type=kind, metadata=metadata)


def _put_tar(
    store: Store,
    layout: JobLayout,
    job: Job,
    unit: Unit,
    there: IO[bytes],
    name: str,
    gone: Set[str],
) -> FileFacts:
    with tempfile.TemporaryFile(prefix="fewstep-") as here:
        _filter_tar(rewound(there), here, gone)
        size = here.tell()
        here.seek(0)
        digest = hashlib.file_digest(here, "sha256").hexdigest()
        here.seek(0)
        key, facts = layout.shards + name, {"sha256": digest}
        reply = store.put_file(key, here, content_type=TAR, metadata=facts)
        put_forms(store, layout, job, unit, here)
        return FileFacts(name=name, bytes=size, sha256=digest, etag=reply.etag)


def _filter_tar(there: IO[bytes], here: IO[bytes], gone: Set[str]) -> None:
    """Members are copied as they are: the same pictures make the same tar."""
    with (
        tarfile.open(fileobj=there, mode="r:") as source,
        tarfile.open(fileobj=here, mode="w", format=tarfile.USTAR_FORMAT) as target,
    ):
        for member in source:
            if member.name.partition(".")[0] not in gone:
                target.addfile(member, source.extractfile(member))


def _put_table(store: Store, layout: JobLayout, name: str, rows: pa.Table) -> FileFacts:
    out = io.BytesIO()
    pq.write_table(rows, out, compression="zstd")
    data = out.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    key, facts = layout.shards + name, {"sha256": digest}
    reply = store.put(key, data, content_type=PARQUET, metadata=facts)
    return FileFacts(name=name, bytes=len(data), sha256=digest, etag=reply.etag)
