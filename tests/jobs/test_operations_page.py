"""The figures that docs/operations.md tells of one process of the API are those of the code."""

import re
from pathlib import Path

from jobs import counting, kept, pictures, shard_sheet, thumbnails, webhook_sender
from jobs.api import house, key_ring, routes_submit, sse

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operations.md"


def test_limits_of_one_process() -> None:
    part = (
        PAGE.read_text("utf-8").split("### What each of its processes has")[1].split("## Cost")[0]
    )
    told = [int(number) for number in re.findall(r"\b\d+\b", part.partition("|---|---|")[2])]
    mib, minutes = 1 << 20, round(kept.KEEP_S / 60)
    assert told == [
        *(sse.STREAMS, 429),
        house.MAKERS,
        *(round(routes_submit.DRY_RUN_S), house.CHECKERS),
        house.CHANGERS,
        *(thumbnails.KEPT // mib, minutes),
        *(shard_sheet.KEPT // mib, minutes),
        pictures.SHARDS_KEPT,
        counting.JOBS_KEPT,
        webhook_sender.AT_ONCE,
        round(key_ring.FRESH_S),
    ]
