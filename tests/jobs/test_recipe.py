"""Identities and seeds: what must stay the same for ever, and what must tell things apart."""

import pytest

from jobs.catalog import Catalog, load_catalog
from jobs.errors import InvalidInput
from jobs.job import choose_shard_images, job_id
from jobs.recipe import Recipe, RecipeRequest, StyleWeight
from jobs.seeds import image_seed, repeat_seed


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


@pytest.mark.parametrize(
    ("seed", "row", "repeat", "expected"),
    [
        (0, 0, 0, 1_861_648_738),
        (7, 0, 0, 4_175_354_375),
        (7, 12, 3, 3_168_370_143),
        (4_294_967_295, 999_999, 1, 4_033_357_407),
    ],
)
def test_seeds_never_change(seed: int, row: int, repeat: int, expected: int) -> None:
    """A dataset made last year can be extended today: these values are a promise."""
    assert image_seed(seed, row, repeat) == expected


def test_seeds_are_spread() -> None:
    seeds = {image_seed(1, row, repeat) for row in range(500) for repeat in range(4)}
    assert len(seeds) == 2000
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_a_rows_own_seed_is_its_first_picture() -> None:
    assert repeat_seed(42, 0) == 42
    assert len({repeat_seed(42, repeat) for repeat in range(10)}) == 10


def test_the_same_key_is_the_same_job() -> None:
    assert job_id("a", "key") == job_id("a", "key")
    assert job_id("a", "key") != job_id("b", "key")


@pytest.mark.parametrize(
    ("images", "batch", "shard"),
    [(1, 16, 16), (64, 16, 16), (10_000, 16, 640), (1_000_000, 16, 992), (5, 2000, 2000)],
)
def test_shards_are_whole_batches(images: int, batch: int, shard: int) -> None:
    assert choose_shard_images(images, batch) == shard


def recipe(catalog: Catalog, **fields: object) -> Recipe:
    return catalog.resolve(RecipeRequest.model_validate(fields))


def test_what_makes_another_engine(catalog: Catalog) -> None:
    """Steps, size and guidance share an engine; adapters and their weights do not."""
    plain = recipe(catalog)
    assert recipe(catalog, steps=2, width=96).engine_key == plain.engine_key
    assert recipe(catalog, steps=2).batch_key != plain.batch_key
    teacher = recipe(catalog, accelerator="none")
    light = recipe(catalog, styles=[{"name": "outline", "weight": 0.5}])
    heavy = recipe(catalog, styles=[{"name": "outline", "weight": 0.8}])
    keys = {one.engine_key for one in (plain, teacher, light, heavy)}
    assert len(keys) == 4
    assert {one.base_key for one in (plain, teacher, light, heavy)} == {plain.base_key}


def test_what_is_left_out_comes_from_the_catalog(catalog: Catalog) -> None:
    plain = recipe(catalog)
    assert (plain.sampler, plain.steps, plain.guidance) == ("lcm", 4, 1.0)
    assert plain.unet_calls == 4
    guided = recipe(catalog, guidance=1.5)
    assert guided.unet_calls == 8
    teacher = recipe(catalog, accelerator="none")
    assert (teacher.sampler, teacher.steps) == ("dpmpp", 25)


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"model": "nope"}, "model"),
        ({"accelerator": "lcm-sdxl"}, "accelerator"),
        ({"styles": [{"name": "nope"}]}, "style"),
        ({"styles": [{"name": "outline"}, {"name": "outline"}]}, "styles"),
        ({"steps": 9}, "steps"),
        ({"steps": 0}, "steps"),
        ({"guidance": 7.5}, "guidance"),
        ({"sampler": "ddim"}, "sampler"),
        ({"width": 65}, "width"),
        ({"height": 4096}, "height"),
    ],
)
def test_what_a_recipe_does_not_allow(
    catalog: Catalog, fields: dict[str, object], where: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        recipe(catalog, **fields)
    assert caught.value.where == where
    assert caught.value.remedy


def test_styles_are_canonical(catalog: Catalog) -> None:
    """The order in which a user names styles does not make another engine."""
    first, second = StyleWeight(name="outline", weight=0.8), StyleWeight(name="other", weight=0.5)
    entry = catalog.styles["outline"]
    both = catalog.model_copy(update={"styles": {"outline": entry, "other": entry}})
    one = both.resolve(RecipeRequest(styles=(first, second)))
    two = both.resolve(RecipeRequest(styles=(second, first)))
    assert one.engine_key == two.engine_key
