"""docs/filters.md, read from its top: its commands are run on the tiny model itself."""

import threading
from pathlib import Path

import pytest

from jobs.catalog import Catalog
from tests.api_servers import RunningApi
from tests.flow.one_machine import House
from tests.flow.test_datasets_page import blocks_of, run_block
from tests.made_shards import made_job
from workers.engine import Engine


@pytest.mark.timeout(600)
def test_the_page_says_what_a_reader_gets(
    api: RunningApi, engine: Engine, catalog: Catalog, tmp_path: Path
) -> None:
    settings = api.settings
    house = House(settings.redis_url.get_secret_value(), api.store, catalog, engine, settings)
    over = threading.Event()

    def finish() -> None:
        while not over.wait(0.1):
            house.finish()

    finisher = threading.Thread(target=finish)
    for name, _, text in blocks_of("filters.md"):
        if name:
            (tmp_path / name).write_text(text, "utf-8")
    with house.rendering(made_job()):
        finisher.start()
        try:
            for name, kind, text in blocks_of("filters.md"):
                if not name:
                    run_block(api, tmp_path, kind, text)
        finally:
            over.set()
            finisher.join()
