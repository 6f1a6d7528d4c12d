"""Filters as a job names them, their columns, and near-duplicates among many hashes."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fewstep.request import filters_of
from jobs.accepting import rows_short
from jobs.catalog import Catalog, load_catalog
from jobs.duplicates import near_duplicates
from jobs.errors import InvalidInput
from jobs.filter_columns import filter_columns, marks_of, rejects_of
from jobs.filters import FilterEntry, FilterRequest, JobFilter, resolve_filters
from jobs.job import Image, JobRequest, with_try
from jobs.recipe import RecipeRequest
from jobs.rows import Row
from jobs.seeds import later_seed
from jobs.submit import resolve_request
from tests.made_shards import made_job


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


def asked(**fields: Any) -> FilterRequest:
    return FilterRequest.model_validate({"name": "prompt_agreement"} | fields)


# ---- what may be asked ----


def test_limits_left_out_are_the_catalogs(catalog: Catalog) -> None:
    request = JobRequest(filters=(asked(policy="drop"), asked(name="near_duplicate")))
    _, (agreement, duplicate) = resolve_request(catalog, request)
    assert (agreement.kind, agreement.policy, agreement.at_least) == ("judge", "drop", 1.0)
    assert (duplicate.kind, duplicate.policy) == ("duplicate", "keep")
    assert duplicate.at_least is not None


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (JobRequest(filters=(asked(name="beauty"),)), "no filter 'beauty'"),
        (
            JobRequest(recipe=RecipeRequest(width=96, height=96), filters=(asked(),)),
            "cannot score such pictures",
        ),
        (JobRequest(recipe=RecipeRequest(model="sdxl"), filters=(asked(),)), "cannot score"),
        (
            JobRequest(filters=(asked(name="near_duplicate", at_least=2.5),)),
            "a whole number",
        ),
        (JobRequest(filters=(asked(name="near_duplicate", at_most=3.0),)), "a whole number"),
    ],
)
def test_what_the_catalog_does_not_offer_is_refused(
    catalog: Catalog, request_: JobRequest, says: str
) -> None:
    with pytest.raises(InvalidInput, match=says) as error:
        resolve_request(catalog, request_)
    assert error.value.where == "filters"


def test_a_filter_without_any_limit_only_scores(catalog: Catalog) -> None:
    recipe = catalog.resolve(RecipeRequest())
    offered = {"mine": FilterEntry(kind="plugin", plugin="a.b:c")}
    kept = resolve_filters(offered, (asked(name="mine"),), recipe)
    assert kept[0].passes(-1e9)
    with pytest.raises(InvalidInput, match="no limit of its own"):
        resolve_filters(offered, (asked(name="mine", policy="retry"),), recipe)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"filters": (asked(), asked(policy="drop"))}, "named twice"),
        ({"filters": (asked(at_least=0.9, at_most=0.1),)}, "must not exceed"),
        ({"accept": 2}, "accept needs a filter"),
        ({"accept": 2, "filters": (asked(policy="drop"),)}, "accept needs a filter"),
        ({"accept": 2, "repeats": 3, "filters": (asked(policy="retry"),)}, "leave repeats out"),
        ({"max_tries": 0}, "greater than or equal"),
        ({"filters": ({"name": "x", "policy": "burn"},)}, "keep"),
    ],
)
def test_requests_that_contradict_themselves_are_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        JobRequest.model_validate(fields)


@pytest.mark.parametrize(
    ("text", "limits", "policy"),
    [
        ("near_duplicate", (None, None), "keep"),
        ("near_duplicate:drop", (None, None), "drop"),
        ("prompt_agreement>=0.8:retry", (0.8, None), "retry"),
        ("a-1 <= -2.5e-3", (None, -0.0025), "keep"),
        ("b>=1<=3:keep", (1.0, 3.0), "keep"),
    ],
)
def test_filters_on_the_command_line(
    text: str, limits: tuple[float | None, float | None], policy: str
) -> None:
    [one] = filters_of([text])
    assert ((one.at_least, one.at_most), one.policy) == (limits, policy)


@pytest.mark.parametrize("text", ["", ">=1", "a>1", "a>=x", "a:burn", "a>=1:", "../x", "a=1"])
def test_what_is_no_filter_is_refused_on_the_command_line(text: str) -> None:
    with pytest.raises(InvalidInput) as error:
        filters_of([text])
    assert (error.value.where or "").startswith("--")


@pytest.mark.parametrize(
    "entry",
    [
        {"kind": "clip"},
        {"kind": "classifier", "source": "path:/x"},
        {"kind": "aesthetic", "source": "path:/x"},
        {"kind": "plugin"},
        {"kind": "plugin", "plugin": "os.system('x')"},
        {"kind": "judge", "source": "path:/x"},
        {"kind": "judge", "at_least": 2.0, "at_most": 1.0},
    ],
)
def test_an_operators_entry_must_be_complete(entry: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FilterEntry.model_validate(entry)


def test_a_picture_that_could_not_be_judged_passes() -> None:
    one = JobFilter(name="a", kind="clip", policy="drop", at_least=0.2, at_most=0.8)
    assert [one.passes(score) for score in (0.1, 0.2, 0.8, 0.9, None)] == [
        *(False, True, True, False, True)
    ]


# ---- rows ----


def test_columns_follow_from_the_filters() -> None:
    assert filter_columns(()) == {}
    some = [JobFilter(name="a", kind="judge", policy="keep")]
    assert [*filter_columns(some)] == ["seed_try", "turned_away", "marks", "filter_ms", "score_a"]
    some.append(JobFilter(name="near", kind="duplicate", policy="keep", at_least=2))
    assert {"phash", "duplicate_of", "score_near"} < filter_columns(some).keys()
    job = made_job(columns={"topic": "string"}).model_copy(update={"filters": tuple(some)})
    assert [*job.columns][-1] == "topic"


def test_rejects_count_every_picture_that_was_turned_away() -> None:
    rows = [
        {"status": "ok", "error_kind": "", "turned_away": "a,nan", "marks": "b"},
        {"status": "failed", "error_kind": "rejected", "turned_away": "a", "marks": "b"},
        {"status": "failed", "error_kind": "flat"},
        {"status": "failed", "error_kind": "device"},
    ]
    assert rejects_of(rows) == {"a": 2, "flat": 1, "nan": 1}
    assert marks_of(rows) == {"b": 1}


def test_later_seeds_follow_from_the_image_alone() -> None:
    job = made_job(repeats=2)
    image = Image(index=5, row_index=2, repeat=1, seed=9, row=Row(prompt="x", seed=9))
    later = with_try(job, image, 3)
    assert (later.seed, later.seed_try) == (later_seed(job.seed, 2, 1, 3), 3)
    assert (later.index, later.row) == (5, image.row)
    # Written down, so that no version may change them.
    assert later_seed(7, 2, 1, 3) == 2745445253
    places = itertools.product(range(20), range(3), range(1, 5))
    assert len({later_seed(7, *one) for one in places}) == 20 * 3 * 4


# ---- near-duplicates ----

hashes = st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 40), max_size=60)


@settings(deadline=None)
@given(hashes, st.integers(0, 15))
def test_near_duplicates_are_those_of_the_plain_definition(many: list[int], within: int) -> None:
    found, apart = near_duplicates(many, within)
    for number, one in enumerate(many):
        close = [n for n in range(number) if (many[n] ^ one).bit_count() <= within]
        assert found[number] == (close[0] if close else -1)
        assert apart[number] == ((many[close[0]] ^ one).bit_count() if close else -1)


def test_very_many_hashes_are_compared_in_little_memory() -> None:
    rng = np.random.default_rng(1)
    many = rng.integers(0, 2**63, 40_000, dtype=np.uint64)
    many[30_000:30_500] = many[:500] ^ np.uint64(1 << 17)
    found, apart = near_duplicates(many, 3)
    assert (found[30_000:30_500] == np.arange(500)).all()
    assert (apart[30_000:30_500] == 1).all()
    # A stuck model: as many pictures that are all alike.
    found, _ = near_duplicates(np.full(40_000, 7, np.uint64), 3)
    assert found[0] == -1
    assert (found[1:] == 0).all()


# ---- rows that are short ----


@pytest.mark.parametrize(
    ("failed", "missing", "short"),
    [
        (set(), [], 0),
        ({1, 4}, [], 2),
        (set(), [range(1, 2)], 1),
        ({1}, [range(1, 3)], 2),
        ({0, 3}, [range(1, 3)], 4),
        (set(), [range(1), range(1), range(1, 2)], 2),
        ({2, 7, 9}, [range(6, 8), range(3), range(1, 4), range(2, 3)], 7),
    ],
)
def test_rows_short_of_pictures_are_counted_once(
    failed: set[int], missing: list[range], short: int
) -> None:
    assert rows_short(failed, missing) == short
