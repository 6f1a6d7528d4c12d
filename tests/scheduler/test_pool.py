"""What a renderer asks Ray for."""

from jobs.entries import ModelEntry
from jobs.recipe import RecipeRequest
from scheduler.pool import Pool
from tests.rendered_jobs import CATALOG

TINY = CATALOG.resolve(RecipeRequest(model="tiny"))


def pool(**more: object) -> Pool:
    entry: ModelEntry = CATALOG.models["tiny"].model_copy(update=more)
    return Pool(1, "gpu", {"tiny": entry})


def test_a_whole_device_and_no_more_where_the_catalog_says_nothing() -> None:
    assert pool().wants(TINY, 1) == {"num_gpus": 1, "num_cpus": 0}
    assert Pool(1).wants(TINY, 0) == {"num_gpus": 0, "num_cpus": 1}


def test_a_kind_of_gpu_and_memory_where_the_catalog_says_so() -> None:
    choosy = pool(gpu="A100", node_memory=7)
    wanted = {"num_gpus": 1, "num_cpus": 0, "accelerator_type": "A100", "memory": 7}
    assert choosy.wants(TINY, 1) == wanted
    # On a CPU there is no kind of GPU to ask for.
    assert choosy.wants(TINY, 0) == {"num_gpus": 0, "num_cpus": 1, "memory": 7}
