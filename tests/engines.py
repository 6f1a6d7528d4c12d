"""The tiny model's engine, loaded once."""

import pytest

from jobs.catalog import Catalog, load_catalog
from jobs.recipe import RecipeRequest
from workers.engine import Engine, load_engine, pick_device


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    """The shipped catalog."""
    return load_catalog()


@pytest.fixture(scope="session")
def engine(catalog: Catalog) -> Engine:
    """The tiny model with its fused LCM-LoRA, on one CPU thread."""
    return load_engine(catalog.resolve(RecipeRequest()), pick_device(threads=1))
