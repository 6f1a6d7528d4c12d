"""Reads a table or an archive of prompts in a process of its own, in bounded memory.

`python -m jobs.sources.child KIND DROPPED BYTES SECONDS`: the file is standard input, BYTES what it
may take of memory, SECONDS of a processor. On standard output comes a JSON line for each record,
`{"n": number, "v": value}` or `{"n": number, "e": [what, remedy]}`, or at last `{"fatal": [what,
remedy]}`. What is unpacked may ask for any memory: here the kernel refuses it, and nobody else's
process ends.
"""

import json
import resource
import sys
import tarfile
from collections.abc import Iterator
from datetime import date, datetime, time
from typing import Any, BinaryIO

MAX_RECORD = 1_000_000
_BATCH = 256


class Fatal(Exception):
    """The file cannot be read on: what is wrong, and what to do."""


def main(kind: str, dropped: list[str], memory: int, seconds: int) -> None:
    """Read standard input to its end."""
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    # The kernel says so with a signal that ends it, and again, for good, a little later.
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 10))
    with open(0, "rb", closefd=False) as file:
        file.seek(0)
        try:
            for number, line in enumerate(_KINDS[kind](file, dropped), start=1):
                print(json.dumps({"n": number} | line))
        except Fatal as error:
            print(json.dumps({"fatal": list(error.args)}))
        except MemoryError:
            print(
                json.dumps({"fatal": [f"reading it takes more than {memory >> 20} MiB", _SMALLER]})
            )


_SMALLER = "write it with smaller row groups, or as JSONL"


def _parquet(file: BinaryIO, dropped: list[str]) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def batches() -> Iterator[Any]:
        table = pq.ParquetFile(file)
        names = _kept(table.schema_arrow, dropped)
        yield from table.iter_batches(_BATCH, columns=names, use_threads=False)

    yield from _table(batches(), pa)


def _arrow(file: BinaryIO, dropped: list[str]) -> Iterator[dict[str, Any]]:
    import pyarrow as pa

    def batches() -> Iterator[Any]:
        reader = pa.ipc.open_stream(file)
        names = _kept(reader.schema, dropped)
        for batch in reader:
            for first in range(0, batch.num_rows, _BATCH):
                yield batch.slice(first, _BATCH).select(names)

    yield from _table(batches(), pa)


def _table(batches: Iterator[Any], pa: Any) -> Iterator[dict[str, Any]]:
    try:
        for batch in batches:
            for row in batch.to_pylist():
                yield _record({name: value for name, value in row.items() if value is not None})
    except pa.ArrowMemoryError as error:
        raise MemoryError from error
    except (OSError, pa.ArrowException, ValueError) as error:
        # The first line alone: what Arrow adds is about its own insides.
        what = str(error).partition("\n")[0][:200]
        raise Fatal(f"the file cannot be read: {what}", "write it anew") from error


def _kept(schema: Any, dropped: list[str]) -> list[str]:
    """The columns to read; raises Fatal for one that holds bytes."""
    import pyarrow as pa

    names = [field.name for field in schema if field.name not in dropped]
    if len(set(names)) != len(names):
        raise Fatal("a column is there twice", "give each a name of its own")
    for field in schema:
        if field.name in names and _binary(field.type, pa):
            raise Fatal(
                f"the column {field.name!r} holds bytes, which pass through no row",
                f"leave it out: --drop {field.name}",
            )
    return names


def _binary(kind: Any, pa: Any) -> bool:
    bare = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    if any(check(kind) for check in bare) or pa.types.is_binary_view(kind):
        return True
    return any(_binary(kind.field(place).type, pa) for place in range(kind.num_fields))


def _tar(file: BinaryIO, _dropped: list[str]) -> Iterator[dict[str, Any]]:
    """The captions of a WebDataset: KEY.txt, or `prompt` or `caption` of KEY.json."""
    try:
        with tarfile.open(fileobj=file, mode="r|") as tar:
            key, texts = "", dict[str, Any]()
            for member in tar:
                if not member.isfile():
                    continue
                folder, _, name = member.name.rpartition("/")
                stem, _, end = name.partition(".")
                here = f"{folder}/{stem}" if folder else stem
                if here != key and texts:
                    yield _caption(key, texts)
                    texts = {}
                key = here
                texts[end.lower()] = _body(tar, member, end.lower())
            if texts:
                yield _caption(key, texts)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise Fatal(f"the archive cannot be read: {error}"[:200], "write it anew") from error


def _body(tar: tarfile.TarFile, member: tarfile.TarInfo, end: str) -> bytes | None:
    if end not in ("txt", "json"):
        return b""
    body = tar.extractfile(member) if member.size <= MAX_RECORD else None
    return body.read() if body is not None else None


def _caption(key: str, texts: dict[str, Any]) -> dict[str, Any]:
    if None in texts.values():
        return {"e": [f"a text of {key[:80]!r} has more than {MAX_RECORD} bytes", "shorten it"]}
    try:
        prompt = texts["txt"].decode().strip() if "txt" in texts else _told(texts.get("json"))
    except (ValueError, RecursionError):
        prompt = None
    if prompt is None:
        return {"e": [f"{key[:80]!r} has no caption", "KEY.txt, or prompt or caption in KEY.json"]}
    return _record({"prompt": prompt, "source_key": key})


def _told(data: bytes | None) -> str | None:
    value = json.loads(data) if data else None
    found = value.get("prompt", value.get("caption")) if isinstance(value, dict) else None
    return found if isinstance(found, str) else None


def _record(value: dict[str, Any]) -> dict[str, Any]:
    # NaN stands as itself and is refused where the row is checked.
    if len(json.dumps(value, default=_plain)) > MAX_RECORD:
        return {"e": [f"the row is longer than {MAX_RECORD} bytes", "leave a column out: --drop"]}
    return {"v": json.loads(json.dumps(value, default=_plain))}


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, date | datetime | time) else str(value)


_KINDS = {"parquet": _parquet, "arrow": _arrow, "tar": _tar}

if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
