"""Coverage: pictures by value from committed shards alone, each manifest read once, exact sums."""

from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from itertools import count, pairwise
from typing import Any

import httpx
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.counting import Counting
from jobs.coverage import PAIR_VALUES, VALUES, Counts, Sum, ValueTally
from jobs.covered import Tallied, expected_of
from jobs.dataset_index import cover
from jobs.drop import drop_rows
from jobs.extend import extend_job
from jobs.extent import Extent, own_block
from jobs.finish import Facts
from jobs.job import ExtensionRequest
from jobs.layout import JobLayout
from jobs.manifest import Manifest
from jobs.rows import Row
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from jobs.templates.expansion import TemplateRequest
from jobs.templates.fair import fair_counts
from jobs.templates.template import Template
from tests.api_calls import layout_of, submit
from tests.api_renderer import finish_dataset, job_of, render_shards
from tests.api_servers import RunningApi
from tests.rendered_jobs import CATALOG, PREFIX, TENANT, Workshop

TEMPLATE = {
    "template": "a {big|2::small} {{color}} {{shape}}",
    "lists": {"color": ["red", "blue", "{dark|light} green"], "shape": ["circle", "star"]},
    "mode": "balanced",
    "count": 24,
}
BODY = {"job": {"repeats": 2, "shard_images": 8}, "template": TEMPLATE}


def look(http: httpx.Client, job_id: str) -> dict[str, Any]:
    reply = http.get(f"/v1/jobs/{job_id}/coverage")
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def values(found: dict[str, Any], which: str = "made") -> dict[str, dict[str, int]]:
    return {
        column["column"]: {one["value"]: one[which] for one in column["values"]}
        for column in found["columns"]
    }


def made_by_hand(http: httpx.Client, api: RunningApi, job_id: str) -> dict[str, Counter[str]]:
    """The same from the rows themselves."""
    job = job_of(api, job_id)
    prompts = Template.of(TemplateRequest.model_validate(TEMPLATE, strict=False)).prompts
    items = http.get(f"/v1/jobs/{job_id}/items").json()["items"]
    rows = [prompts.row(one["row"]).extra for one in items if one["status"] == "ok"]
    names = [name for name in job.rows.columns if name != "combination"]
    return {name: Counter(str(row[name]) for row in rows) for name in names}


def test_pictures_are_counted_by_value_while_the_job_runs_and_after(
    http: httpx.Client, api: RunningApi
) -> None:
    job_id = submit(http, BODY)
    before = look(http, job_id)
    assert (before["made"], before["images"], before["exact"]) == (0, 48, True)
    assert values(before, "expected")["color"] == {
        "red": 16,
        "blue": 16,
        "dark green": 8,
        "light green": 8,
    }
    assert values(before)["choice_1"] == {"big": 0, "small": 0}

    render_shards(api, job_id, shards=2, failed=[3, 4])
    during = look(http, job_id)
    assert (during["made"], during["counted"], during["errors"]) == (14, 16, {"not a number": 2})
    by_hand = made_by_hand(http, api, job_id)
    for name, found in values(during).items():
        assert {value: n for value, n in found.items() if n} == by_hand[name]

    render_shards(api, job_id)
    finish_dataset(api, job_id)
    after = look(http, job_id)
    assert (after["made"], after["counted"]) == (46, 48)
    assert {name: Counter(found) for name, found in values(after).items()} == made_by_hand(
        http, api, job_id
    )
    pair = next(one for one in after["pairs"] if one["columns"] == ["color", "shape"])
    assert sum(n for some in pair["made"].values() for n in some.values()) == 46
    assert pair["expected"]["red"] == {"circle": 8, "star": 8}
    card = api.store.get(layout_of(api, job_id).card).decode()
    assert "| `shape` | `circle` 23, `star` 23 |" in card
    written = api.store.get(layout_of(api, job_id).coverage)
    assert (
        Counting(api.store)
        .look(layout_of(api, job_id), job_of(api, job_id), None, ended=True)
        .model_dump_json(indent=1)
        .encode()
        == written
    )


def test_labels_of_a_prompt_file_are_counted_and_ids_are_not(
    http: httpx.Client, api: RunningApi
) -> None:
    rows = [
        {"prompt": "a", "label": "star" if n % 3 else "ring", "id": f"{n}", "score": n / 3}
        for n in range(300)
    ]
    job_id = submit(http, {"job": {"shard_images": 250}, "prompts": rows})
    assert values(look(http, job_id), "expected") == {"label": {"ring": 100, "star": 200}}
    render_shards(api, job_id)
    found = look(http, job_id)
    assert values(found) == {"label": {"ring": 100, "star": 200}}
    assert sorted(found["many"]) == ["id", "score"]


class Counted(Store):
    """A store that counts what it is asked for."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self.asked: list[str] = []

    def get(self, key: str) -> bytes:
        self.asked.append(key)
        return self._inner.get(key)

    def list(self, prefix: str, *, after: str = "") -> Any:
        self.asked.append(f"list {prefix.rpartition('/')[2]}")
        return self._inner.list(prefix, after=after)


def test_each_manifest_is_read_once_and_nothing_where_nothing_is_new(
    http: httpx.Client, api: RunningApi
) -> None:
    job_id = submit(http, {"job": {"shard_images": 2}, "prompts": ["a"] * 40})
    job, layout = job_of(api, job_id), layout_of(api, job_id)
    store = Counted(api.store)
    counting = Counting(store)
    seen = 0
    for number in range(5):
        seen += render_shards(api, job_id, shards=4)
        store.asked.clear()
        assert counting.look(layout, job, number, ended=False).counted == 2 * seen
        manifests = [key for key in store.asked if key.endswith("_stats.json")]
        assert len(manifests) == 4
        store.asked.clear()
        assert counting.look(layout, job, number, ended=False).counted == 2 * seen
        assert store.asked == []


def test_shards_out_of_order_and_in_parts_are_counted_once(
    http: httpx.Client, api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many looks, few manifests each, in any order; a whole shard beats its parts."""
    monkeypatch.setattr("jobs.counting.MANIFESTS", 3)
    job_id = submit(http, BODY)
    render_shards(api, job_id)
    job, layout = job_of(api, job_id), layout_of(api, job_id)
    keys = sorted(one.key for one in api.store.list(layout.shards) if "_stats" in one.key)
    manifests = {key: api.store.get(key) for key in keys}
    api.store.delete(keys)
    counting = Counting(api.store)
    part = _half(Manifest.model_validate_json(manifests[keys[2]]))
    api.store.put(f"{layout.shards}00002-0000-0003_stats.json", part.model_dump_json().encode())
    assert counting.look(layout, job, "part", ended=False).counted == 4
    for number in (5, 2, 0, 4, 1, 3):
        api.store.put(keys[number], manifests[keys[number]])
        found = counting.look(layout, job, number, ended=False)
    assert found.counted == 48
    every = Tallied()
    every.add(cover(Manifest.model_validate_json(data) for data in manifests.values()))
    assert found == every.coverage(
        job, job.images, expected_of(api.store, layout, Extent(job, [own_block(job)]))
    )


def _half(whole: Manifest) -> Manifest:
    names = {"unit": "2:16-20", "stop": 20, "count": 4, "ok": 4}
    tar = whole.tar.model_copy(update={"name": "00002-0000-0003.tar"})
    return whole.model_copy(update={**names, "tar": tar})


def test_what_is_left_comes_with_the_next_look(
    http: httpx.Client, api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.counting.MANIFESTS", 3)
    job_id = submit(http, {"job": {"shard_images": 1}, "prompts": ["a"] * 8})
    render_shards(api, job_id)
    counting = Counting(api.store)
    ask = [job_of(api, job_id), "the same"]
    seen = [
        counting.look(layout_of(api, job_id), *ask, ended=False).counted  # type: ignore[arg-type]
        for _ in range(4)
    ]
    assert seen == [3, 6, 8, 8]


def test_a_job_whose_shards_were_deleted_has_none(http: httpx.Client, api: RunningApi) -> None:
    job_id = submit(http, BODY)
    render_shards(api, job_id, shards=2)
    assert look(http, job_id)["made"] == 16
    http.post(f"/v1/jobs/{job_id}/cancel", params={"shards": "delete"})
    api.store.delete(one.key for one in api.store.list(layout_of(api, job_id).shards))
    api.queue.finish(job_id, "cancelled")
    assert look(http, job_id)["made"] == 0


def test_manifests_of_earlier_versions_are_told_apart(http: httpx.Client, api: RunningApi) -> None:
    job_id = submit(http, BODY)
    render_shards(api, job_id, shards=2)
    key = f"{layout_of(api, job_id).shards}00000_stats.json"
    old = Manifest.model_validate_json(api.store.get(key)).model_dump_json(exclude={"counts"})
    api.store.put(key, old.encode())
    found = look(http, job_id)
    assert (found["made"], found["uncounted"]) == (16, 8)
    assert sum(values(found)["shape"].values()) == 8


def test_what_filters_turned_away_and_marked_is_told_by_reason(
    http: httpx.Client, api: RunningApi
) -> None:
    job_id = submit(http, BODY)
    render_shards(api, job_id, shards=2, failed=[1])
    folder = layout_of(api, job_id).shards
    for shard, turned_away in (("00000", 5), ("00001", 2)):
        key = f"{folder}{shard}_stats.json"
        one = Manifest.model_validate_json(api.store.get(key))
        ways = one.status_dict | {"rejected:prompt_agreement": 1}
        news = {"status_dict": ways, "rejects": {"prompt_agreement": turned_away, "nan": 1}}
        data = one.model_copy(update=news | {"marks": {"aesthetic": 3}}).model_dump_json()
        api.store.put(key, data.encode())
    found = look(http, job_id)
    assert found["errors"] == {"not a number": 1}
    assert found["rejects"] == {"prompt_agreement": 7, "nan": 2}
    assert found["marks"] == {"aesthetic": 6}
    page = http.get(f"/jobs/{job_id}/coverage").text
    assert "prompt_agreement" in page
    assert "aesthetic" in page


# ---- sums ----

LABELS = st.sampled_from(["red", "blue", "", "it's \u202e<b>", "7", None])
ROWS = st.lists(st.fixed_dictionaries({"a": LABELS, "b": LABELS, "c": st.booleans()}), max_size=40)


@settings(deadline=None)
@given(ROWS, st.lists(st.integers(0, 40), max_size=4))
def test_sums_do_not_depend_on_the_units(rows: list[dict[str, Any]], cuts: list[int]) -> None:
    def counts(some: list[dict[str, Any]]) -> Counts:
        tally = ValueTally(["a", "b", "c"])
        for row in some:
            tally.add(row)
        return tally.counts()

    bounds = sorted({0, len(rows), *(min(cut, len(rows)) for cut in cuts)})
    total = Sum()
    for first, stop in pairwise(bounds):
        total.add(counts(rows[first:stop]), stop - first)
    whole = counts(rows)
    assert total.total().values == whole.values
    assert {one.columns: one.counts for one in total.total().pairs} == (
        {one.columns: one.counts for one in whole.pairs} if rows else {}
    )


def test_what_is_counted_is_bounded() -> None:
    tally = ValueTally([f"c{n}" for n in range(64)])
    for number in range(1_000):
        tally.add({f"c{n}": f"{number % (20 * n + 1)}" for n in range(64)} | {"c9": "x" * 101})
    found = tally.counts()
    assert sum(map(len, found.values.values())) <= 1_000
    assert {"c9", "c63"} <= {*found.many}
    assert all(len(cells) <= PAIR_VALUES for one in found.pairs for cells in one.counts.values())
    assert len(found.model_dump_json()) < 60_000
    assert not {*found.many} & {*found.values}
    assert VALUES < 20 * 63


def test_hostile_labels_stay_in_their_cell_of_the_card(http: httpx.Client, api: RunningApi) -> None:
    label = "a` | <b> |\n# x [y](z)"
    job_id = submit(http, {"prompts": [{"prompt": "a", "label": label} for _ in range(30)]})
    render_shards(api, job_id)
    finish_dataset(api, job_id)
    card = api.store.get(layout_of(api, job_id).card).decode()
    (line,) = [one for one in card.splitlines() if one.endswith(" 30 |")]
    assert line == "| `label` | `a' / <b> / # x [y](z)` 30 |"


def test_a_column_that_one_unit_left_out_is_left_out_of_the_sum() -> None:
    total = Sum()
    for number in (10, VALUES + 1, 10):
        tally = ValueTally(["id", "label"])
        for n in range(number):
            tally.add({"id": f"{n}", "label": "star"})
        total.add(tally.counts(), number)
    found = total.total()
    assert (found.values, found.many, found.pairs) == (
        {"label": {"star": VALUES + 21}},
        ("id",),
        (),
    )


# ---- what is expected ----


@pytest.mark.parametrize("mode", ["balanced", "combinatorial"])
@pytest.mark.parametrize("count", [1, 7, 16, 36])
def test_fair_counts_are_what_the_rows_have(mode: str, count: int) -> None:
    asked = TEMPLATE | {"mode": mode, "count": min(count, 16) if mode == "combinatorial" else count}
    prompts = Template.of(TemplateRequest.model_validate(asked, strict=False)).prompts
    rows = [row.extra for row in prompts.rows(0, prompts.count)]
    for name, found in fair_counts(prompts).items():
        made = Counter(row[name] for row in rows)
        assert sum(found.values()) == prompts.count
        for value, expected in found.items():
            stray = abs(made[value] - expected)
            assert stray <= (Fraction(0) if mode == "combinatorial" else 2), (name, value)


def test_what_a_billion_rows_make_is_known_at_once(http: httpx.Client) -> None:
    job = {"shard_images": 1_000}
    job_id = submit(http, {"job": job, "template": TEMPLATE | {"count": 10**9}})
    found = look(http, job_id)
    assert found["exact"] is False
    assert values(found, "expected")["choice_1"] == {"big": 333_333_333, "small": 666_666_667}


# ---- shards and their sheets ----


def test_shards_are_listed_with_what_they_hold(http: httpx.Client, api: RunningApi) -> None:
    job_id = submit(http, BODY)
    assert http.get(f"/v1/jobs/{job_id}/shards").json() == {"shards": [], "next": None}
    render_shards(api, job_id, shards=2, failed=[9])
    first = http.get(f"/v1/jobs/{job_id}/shards", params={"limit": 1}).json()
    (one,) = first["shards"]
    assert (one["shard"], one["ok"], one["failed"], first["next"]) == (0, 8, 0, 1)
    (two,) = http.get(f"/v1/jobs/{job_id}/shards", params={"first": 1, "limit": 4}).json()["shards"]
    assert (two["shard"], two["files"], two["errors"]) == (1, ["00001.tar"], {"not a number": 1})


def test_a_sheet_shows_its_own_shard(
    http: httpx.Client, api: RunningApi, pixels: Callable[[bytes], Any]
) -> None:
    job_id = submit(http, BODY)
    path = f"/v1/jobs/{job_id}/contact-sheet"
    assert http.get(path, params={"shard": 1}).status_code == 404
    render_shards(api, job_id, shards=2, failed=[9])
    reply = http.get(path, params={"shard": 1})
    assert reply.headers["content-type"] == "image/jpeg"
    sheet = pixels(reply.content)
    assert sheet.size == (4 + 7 * 132, 4 + 132)
    reds = [sheet.getpixel((4 + 132 * n + 64, 68))[0] for n in range(7)]
    assert [round(red) for red in reds] == pytest.approx([8, 10, 11, 12, 13, 14, 15], abs=2)
    assert http.get(path, params={"shard": 7}).status_code == 404
    assert http.get(path).status_code == 422


@pytest.fixture
def pixels() -> Callable[[bytes], Any]:
    import io

    from PIL import Image

    return lambda data: Image.open(io.BytesIO(data)).convert("RGB")


def test_no_other_tenants_layout_is_counted(http: httpx.Client) -> None:
    for rest in ("coverage", "shards", "contact-sheet?shard=0"):
        assert http.get(f"/v1/jobs/{'a' * 26}/{rest}").status_code == 404


def test_layouts_have_a_place_for_it() -> None:
    layout = JobLayout(prefix="p", tenant="t", job_id="j")
    assert layout.coverage == "p/t/j/coverage.json"


@pytest.mark.parametrize("s3_settings", ["rclone"], indirect=True)
def test_what_is_gone_is_not_counted_while_the_dataset_grows(
    client: redis.Redis, store: Store
) -> None:
    shop, counting = Workshop(ShardQueue(client), store), Counting(store)
    job = shop.submit([Row(prompt=f"prompt {n}") for n in range(5)], repeats=2, shard_images=4)
    layout, looks, more = shop.layout(job), count(), ExtensionRequest(repeats=1)
    asked = {"prefix": PREFIX, "tenant": TENANT, "job_id": job.id, "now_ms": 1_700_000_100_000}

    def made(*, ended: bool = False) -> int:
        return counting.look(layout, job, next(looks), ended=ended).made

    shop.render(job)
    assert made() == 10
    shop.finish()
    drop_rows(shop.store, shop.queue, Facts(), **asked, where="image < 2", idempotency_key="drop")
    extend_job(shop.store, shop.queue, CATALOG, **asked, request=more, idempotency_key="one")
    assert made() == 8
    shop.render(job, 1)
    assert made() == 12
    shop.queue.state(f"{job.id}-r2", "cancel", discard=True)
    shop.finish()
    assert made(ended=True) == 8
    extend_job(shop.store, shop.queue, CATALOG, **asked, request=more, idempotency_key="two")
    assert made() == 8
    shop.render(job)
    assert made() == 13
