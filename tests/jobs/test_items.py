"""The images of a job one by one, and their pictures, from real shards."""

import hashlib
import io
import tarfile

import httpx
import pytest
from PIL import Image

from jobs.errors import Forbidden
from jobs.layout import layout_of
from jobs.links import LinkSigner
from jobs.pictures import Pictures
from tests.api_calls import submit
from tests.api_keys import KeyedApi
from tests.api_renderer import finish_dataset, job_of, render_shards, seed_of
from tests.api_servers import RunningApi

BODY = {
    "job": {"repeats": 2, "shard_images": 3},
    "prompts": ["a red «circle»", {"prompt": "b", "label": "x", "size": 2.5}, {"prompt": "c"}],
}


def items(http: httpx.Client, job_id: str, **params: int) -> tuple[list[dict[str, object]], object]:
    reply = http.get(f"/v1/jobs/{job_id}/items", params=params)
    assert reply.status_code == 200, reply.text
    return reply.json()["items"], reply.json()["next"]


def test_images_are_pending_until_their_shard_is_committed(
    http: httpx.Client, api: RunningApi
) -> None:
    job_id = submit(http, BODY)
    planned, _ = items(http, job_id)
    assert render_shards(api, job_id, shards=1, failed=[1]) == 1
    halfway, _ = items(http, job_id)
    render_shards(api, job_id)
    finish_dataset(api, job_id)
    ended, _ = items(http, job_id)

    assert {one["status"] for one in planned} == {"pending"}
    assert [one["status"] for one in halfway] == ["ok", "failed", "ok"] + ["pending"] * 3
    assert [one["status"] for one in ended] == ["ok", "failed"] + ["ok"] * 4
    # What was planned is what was made.
    fixed = ("image", "row", "repeat", "key", "prompt", "seed")
    assert [[one[name] for name in fixed] for one in planned] == [
        [one[name] for name in fixed] for one in ended
    ]
    assert [one["seed"] for one in ended] == [seed_of(api, job_id, index) for index in range(6)]
    assert (ended[1]["error"], ended[1]["link"]) == ("not a number", None)
    assert ended[0]["key"] == "000000000"


def test_pages_hold_every_image_once(http: httpx.Client, api: RunningApi) -> None:
    job_id = submit(http, BODY)
    render_shards(api, job_id, shards=1)
    seen: list[object] = []
    more: object = 0
    while more is not None:
        assert isinstance(more, int)
        page, more = items(http, job_id, first=more, limit=4)
        seen += [one["image"] for one in page]

    assert seen == [*range(6)]
    assert items(http, job_id, first=100) == ([], None)


def test_a_link_shows_the_picture_without_a_key(http: httpx.Client, api: RunningApi) -> None:
    job_id = submit(http, BODY)
    render_shards(api, job_id, failed=[1])
    for one in items(http, job_id)[0]:
        if one["link"] is None:
            continue
        reply = http.get(str(one["link"]))
        assert reply.status_code == 200, reply.text
        assert reply.headers["content-type"] == "image/png"
        assert hashlib.sha256(reply.content).hexdigest() == one["sha256"]
        assert Image.open(io.BytesIO(reply.content)).size == (64, 64)
    assert http.get(f"/v1/jobs/{job_id}/items/1/picture").status_code == 404
    assert http.get(f"/v1/jobs/{job_id}/items/6/picture").status_code == 404


def test_the_places_of_pictures_are_worked_out_and_not_searched(
    http: httpx.Client, api: RunningApi
) -> None:
    job_id = submit(http, BODY)
    render_shards(api, job_id, failed=[1])
    layout = layout_of(job_of(api, job_id), api.settings.s3_prefix)
    tar = api.store.get(f"{layout.shards}00001.tar")
    with tarfile.open(fileobj=io.BytesIO(tar)) as members:
        true = {one.name: one.offset_data for one in members if one.name.endswith(".png")}

    table = f"{layout.shards}00001.parquet"
    places = Pictures(api.store)._read_places(table, "")
    assert {place.name: place.first for place in places.values()} == true


def test_a_picture_that_lies_elsewhere_is_searched(http: httpx.Client, api: RunningApi) -> None:
    job_id = submit(http, BODY)
    render_shards(api, job_id)
    layout = layout_of(job_of(api, job_id), api.settings.s3_prefix)
    key = f"{layout.shards}00000.tar"
    old, moved = io.BytesIO(api.store.get(key)), io.BytesIO()
    with tarfile.open(fileobj=old) as before, tarfile.open(fileobj=moved, mode="w") as after:
        for member in reversed(before.getmembers()):
            after.addfile(member, before.extractfile(member))
    first = items(http, job_id)[0][0]
    api.store.put(key, moved.getvalue())

    reply = http.get(f"/v1/jobs/{job_id}/items/0/picture")

    assert hashlib.sha256(reply.content).hexdigest() == first["sha256"]


def test_links_are_one_tenants_one_pictures_and_run_out(keyed: KeyedApi) -> None:
    text = keyed.make("ann")
    with keyed.visit(text) as hers, keyed.visit("") as nobody:
        job_id = submit(hers, BODY)
        render_shards(keyed.api, job_id)
        link = str(items(hers, job_id)[0][0]["link"])

        assert nobody.get(link).status_code == 200
        for old, new in (
            ("items/0/", "items/1/"),
            ("of=ann", "of=bob"),
            ("until=", "until=1"),
            (link[-1], "0" if link[-1] != "0" else "1"),
        ):
            assert nobody.get(new.join(link.rsplit(old, 1))).status_code == 403, new
        assert nobody.get(link.partition("?")[0]).status_code == 401

        signer = LinkSigner(keyed.api.store, keyed.api.settings.s3_prefix)
        signer.check("ann", job_id, 0, 2**40, signer._seal("ann", job_id, 0, 2**40))
        with pytest.raises(Forbidden, match="run out"):
            signer.check("ann", job_id, 0, 1, signer._seal("ann", job_id, 0, 1))


@pytest.mark.parametrize("query", ["first=-1", "limit=0", "limit=1001", "first=x"])
def test_a_page_that_cannot_be_is_refused(http: httpx.Client, query: str) -> None:
    assert http.get(f"/v1/jobs/{'a' * 26}/items?{query}").status_code == 422
