"""What filters and limits came to, on the page: near-duplicates, short prompts, what is spent."""

import io
import json
import re

import httpx
import pyarrow as pa
import pyarrow.parquet as pq

from tests.api_calls import layout_of, submit
from tests.api_renderer import finish_dataset, render_shards
from tests.api_servers import RunningApi

ALIKE = [
    {"key": "000000001", "image": 1, "duplicate_of": "000000000", "distance": 1},
    {"key": "000010001", "image": 3, "duplicate_of": "000000001", "distance": 3},
]


def ended(api: RunningApi, http: httpx.Client, job: dict[str, object], **counts: int) -> str:
    """A job of four images; its index is made to count what no made-up picture brings."""
    job_id = submit(http, {"job": {"shard_images": 2, **job}, "prompts": ["a", "b", "c", "d"]})
    render_shards(api, job_id)
    finish_dataset(api, job_id)
    layout = layout_of(api, job_id)
    index = json.loads(api.store.get(layout.index)) | counts
    api.store.put(layout.index, json.dumps(index).encode())
    if counts:
        out = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(ALIKE), out)
        api.store.put(layout.duplicates, out.getvalue())
    return job_id


def test_near_duplicates_are_shown_and_may_be_dropped(http: httpx.Client, api: RunningApi) -> None:
    job_id = ended(api, http, {}, duplicates=2, rows_short=3)
    text = http.get(f"/jobs/{job_id}/coverage").text
    told = dict(re.findall(r'<dd id="(duplicates|short)">(\d+)<', text))
    assert told == {"duplicates": "2", "short": "3"}
    assert re.findall(r'aria-label="Picture (\d+), like (\d+)"', text) == [
        ("1", "000000000"),
        ("3", "000000001"),
    ]
    assert "000010001: 3 bits from 000000001" in text
    (link,) = re.findall(r'href="([^"]+change[?][^"]+)#drop"', text)
    page = http.get(link).text
    (where,) = re.findall(r'name="where" value="([^"]+)"', page)
    assert where.replace("&#39;", "'") == "key in ('000000001', '000010001')"


def test_a_job_that_looked_for_none_tells_of_none(http: httpx.Client, api: RunningApi) -> None:
    job_id = ended(api, http, {})
    text = http.get(f"/jobs/{job_id}/coverage").text
    assert "Near-duplicates" not in text
    assert "short of pictures" not in text


def test_limits_are_told_beside_what_is_spent(http: httpx.Client, api: RunningApi) -> None:
    limits = {"max_images": 4, "max_device_seconds": 90, "deadline": "2099-12-01T18:00:00Z"}
    body = {"job": {"shard_images": 2, **limits}, "prompts": ["a"] * 6}
    job_id = submit(http, body)
    render_shards(api, job_id, shards=1)

    def line() -> str:
        (found,) = re.findall(r'id="budget">(.*?)</p>', http.get(f"/jobs/{job_id}").text, re.S)
        return " ".join(found.split())

    told = "Limits: {} of 4 images · 0.0 s of 1 min 30 s of devices · until 1 Dec 2099, 18:00 UTC"
    assert line() == told.format(2)
    render_shards(api, job_id)
    assert line() == told.format(4)
    plain = submit(http, {"prompts": ["a"]})
    assert 'id="budget"' not in http.get(f"/jobs/{plain}").text
