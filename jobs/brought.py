"""What fetches brought into a folder: files that the dataset has no more are taken away again.

A drop, or near-duplicates of other shards, write shards anew under other names; whoever reads
`train/*.tar` of a folder that was fetched before would read the old ones beside the new.
"""

import json
from collections.abc import Collection
from pathlib import Path

#: One name a line. Nothing that is not named here, or by the folder's own index, is removed.
RECORD = ".fewstep-files"
_SUCCESS = "_SUCCESS"


class Brought:
    """The files that a fetch brings to `out`, beside those that earlier ones brought there.

    Made before the first file of a dataset is copied (but its `job.json`, by which the folder is
    known), and `tidy` called once all but `_SUCCESS` are there: a fetch that is cut leaves no
    `_SUCCESS` over files of two states, and the next one goes on.
    """

    def __init__(self, out: Path, names: Collection[str]) -> None:
        self._out = out
        self._names = frozenset(names)
        self._gone = _before(out) - self._names
        if self._gone:
            (out / _SUCCESS).unlink(missing_ok=True)
        self._record(self._names | self._gone)

    def tidy(self) -> int:
        """Remove what the dataset has no more; how many files that were."""
        root, removed = self._out.resolve(), 0
        for name in sorted(self._gone):
            path = self._out / name
            if path.resolve().is_relative_to(root) and path.is_file():
                path.unlink()
                removed += 1
        self._record(self._names)
        return removed

    def _record(self, names: Collection[str]) -> None:
        self._out.mkdir(parents=True, exist_ok=True)
        part = self._out / f"{RECORD}.part"
        part.write_text("".join(f"{name}\n" for name in sorted(names)), "utf-8")
        part.replace(self._out / RECORD)


def _before(out: Path) -> frozenset[str]:
    """Names of the files that earlier fetches brought; of a folder older than the record, those
    that its index tells.
    """
    try:
        return frozenset((out / RECORD).read_text("utf-8").splitlines())
    except FileNotFoundError:
        pass
    try:
        index = json.loads((out / "index.json").read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return frozenset()
    names = {one["name"] for one in index.get("quarantine", ())}
    for shard in index.get("shards", ()):
        stem = shard["name"].removesuffix(".tar")
        names |= {shard["name"], shard["parquet"]["name"], f"{stem}_stats.json"}
    return frozenset(names)
