"""A renderer that becomes another engine's in the same process: the same pictures, nothing lost."""

import json
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from jobs.catalog import Catalog
from jobs.fetch import fetch_dataset
from jobs.job import Job, JobRequest
from jobs.recipe import RecipeRequest, StyleWeight
from jobs.settings import Settings
from jobs.store import Store
from tests.flow.one_machine import House, table_rows
from tests.servers import wait_until
from workers import actor
from workers.engine import Engine, load_engine, pick_device

PROMPTS = "\n".join(f"a big red circle {number}" for number in range(96))
FEW = "\n".join(f"a small blue star {number}" for number in range(6))
PLAIN = RecipeRequest(steps=1)
OUTLINED = RecipeRequest(steps=1, styles=(StyleWeight(name="outline", weight=0.8),))

#: Where the pictures are kept does not matter here.
pytestmark = pytest.mark.parametrize("s3_settings", ["rclone"], indirect=True)


class InThread(actor.Renderer):
    """The actor's shell on a thread of this process: its end is told, and no process ends."""

    def __init__(self, name: str, job: Job) -> None:
        self.ended, self.died = threading.Event(), True
        super().__init__(name, job.recipe.engine_key, job.recipe.model_dump_json())

    def _live(self) -> None:
        try:
            self._run()
            self.died = False
        finally:
            self.ended.set()

    def become(self, job: Job) -> None:
        self.refit(job.recipe.engine_key, job.recipe.model_dump_json())

    def says(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.ping())
        return found

    def net(self) -> Any:
        assert self._parts is not None
        return self._parts.renderer.batches._engine.unet  # type: ignore[attr-defined]


@pytest.fixture
def settings(redis_url: str, s3_settings: Settings, tmp_path: Path) -> Settings:
    given = {"redis_url": SecretStr(redis_url), "lease_ms": 20_000, "renew_ms": 200}
    return s3_settings.model_copy(update={**given, "home": tmp_path})


@pytest.fixture
def house(
    redis_url: str,
    store: Store,
    catalog: Catalog,
    engine: Engine,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> House:
    monkeypatch.setattr(actor, "Settings", lambda: settings)
    # Both are for a whole process, and this one is the tests'.
    monkeypatch.setattr(actor, "start_logging", lambda form: None)
    monkeypatch.setattr(actor, "forbid_remote_code", lambda hub_access: None)
    return House(redis_url, store, catalog, engine, settings)


@pytest.fixture
def plain(house: House) -> Job:
    return house.submit(PROMPTS, JobRequest(shard_images=8, seed=1, recipe=PLAIN))


@pytest.fixture
def renderer(house: House, plain: Job) -> Iterator[InThread]:
    made = InThread("renderer-x", plain)
    yield made
    made.drain()
    assert made.ended.wait(60)


def done(house: House, job: Job) -> int:
    record = house.queue.job(job.id)
    assert record is not None
    assert record.failed_images + record.dead_images == 0
    return record.done_images


def pictures(house: House, job: Job, out: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of a dataset and the digests of its pictures' bytes, in order."""
    fetch_dataset(house.store, house.layout(job), out)
    rows = sorted(table_rows(out), key=lambda row: int(row["image"]))
    return rows, [row["sha256"] for row in rows]


def test_it_renders_the_other_engines_jobs_as_a_fresh_renderer_does_and_comes_back(
    house: House, plain: Job, renderer: InThread, tmp_path: Path
) -> None:
    outlined = house.submit(FEW, JobRequest(shard_images=4, seed=2, recipe=OUTLINED))
    assert outlined.recipe.base_key == plain.recipe.base_key
    assert outlined.recipe.engine_key != plain.recipe.engine_key
    wait_until(lambda: done(house, plain) > 0, "the first shard", 120)
    net = weakref.ref(renderer.net())
    renderer.become(outlined)
    wait_until(lambda: outlined.id in house.queue.finishing(), "the other engine's job", 120)
    # In the middle of its job: what it held was delivered or given back, and the rest waits.
    assert 0 < done(house, plain) < plain.images
    assert not house.queue.leases()
    assert net() is None, "the nets of the engine before are still held"
    [living] = house.queue.renderers()
    told = (living.info["engine_key"], living.info["refit"], living.info["becomes"])
    assert told == (outlined.recipe.engine_key, "1", "")
    assert float(living.info["ready_s"]) > 0

    renderer.become(plain)
    wait_until(lambda: plain.id in house.queue.finishing(), "its first engine's job", 120)
    house.finish()
    rows, _ = pictures(house, plain, tmp_path / "plain")
    assert [row["image"] for row in rows] == list(range(plain.images))
    # Each of its three lives had a name of its own, under which nothing of another's was held.
    first = {row["worker"] for row in rows}
    rows, made = pictures(house, outlined, tmp_path / "outlined")
    second = {row["worker"] for row in rows}
    assert (len(first), len(second), first & second) == (2, 1, set())
    assert {name.rpartition(".")[0] for name in first | second} == {"renderer-x"}

    fresh = load_engine(outlined.recipe, pick_device(threads=1))
    again = House(house.redis_url, house.store, house.catalog, fresh, house.settings)
    job = again.submit(FEW, JobRequest(shard_images=4, seed=2, recipe=OUTLINED))
    again.render(job)
    assert made == pictures(again, job, tmp_path / "fresh")[1]
    assert len(set(made)) == outlined.images


def test_an_engine_that_does_not_load_is_said_and_ends_the_renderer(
    house: House, plain: Job, renderer: InThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where it is the first: nothing is claimed for it, and the process makes room."""
    bad = house.submit(FEW, JobRequest(shard_images=4, seed=2, recipe=OUTLINED))
    [style] = bad.recipe.styles
    weights = style.weights.model_copy(update={"source": "builtin:nothing"})
    worse = style.model_copy(update={"weights": weights})
    recipe = bad.recipe.model_copy(update={"styles": (worse,)})
    wait_until(lambda: done(house, plain) > 0, "the first shard", 120)
    renderer.refit(bad.recipe.engine_key, recipe.model_dump_json())

    def broken() -> bool:
        said = [one.info for one in house.queue.renderers()]
        return [one["state"] for one in said] == ["broken"]

    wait_until(broken, "it to say so", 60)
    [living] = house.queue.renderers()
    assert living.info["engine_key"] == bad.recipe.engine_key
    assert "nothing" in living.info["error"]
    # Its device is of no use to another engine's either before a new process has it.
    renderer.become(plain)
    assert renderer.ended.wait(60)
    assert not renderer.died
    assert not house.queue.leases()
    record = house.queue.job(bad.id)
    assert record is not None
    assert (record.cursor, record.failed_images) == (0, 0)
