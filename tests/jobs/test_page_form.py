"""The form's filters, limits and outputs: what they ask for, what is wrong with them, and again."""

import re
from typing import Any

import httpx
import pytest

from jobs.api.routes_jobs import checked_change
from jobs.errors import NoCapacity
from jobs.page.form import EMPTY, wrong_field
from jobs.page.wishes import budget_from, budget_values
from tests.api_calls import submit
from tests.api_renderer import job_of
from tests.api_servers import RunningApi
from tests.jobs.test_page import Fields

WISH: dict[str, Any] = {
    "filters": [
        {"name": "prompt_agreement", "policy": "retry", "at_least": 0.6},
        {"name": "near_duplicate", "policy": "keep", "at_least": 2},
    ],
    "accept": 3,
    "max_tries": 7,
    "max_images": 50,
    "max_device_seconds": 12.5,
    "deadline": "2099-12-01T18:00:00Z",
    "output": "parquet",
    "validation": 0.25,
    "thumbnails": 32,
}


def post(http: httpx.Client, path: str, fields: dict[str, str]) -> httpx.Response:
    return http.post(
        path,
        files={name: (None, value) for name, value in fields.items()},
        headers={"Origin": str(http.base_url).rstrip("/")},
    )


def empty(http: httpx.Client, **filled: str) -> dict[str, str]:
    """The fields of a new form as a browser has them, and some filled in."""
    return Fields(http.get("/new").text).values | {"prompts": "a\nb"} | filled


def test_the_form_asks_for_filters_limits_and_an_output(
    http: httpx.Client, api: RunningApi
) -> None:
    filled = {
        "filter:prompt_agreement": "retry",
        "least:prompt_agreement": "0.6",
        "filter:near_duplicate": "keep",
        "least:near_duplicate": "2",
        "deadline": "2099-12-01T18:00",
        **{name: str(WISH[name]) for name in WISH if name not in ("filters", "deadline")},
    }
    reply = post(http, "/new", empty(http) | filled)
    assert reply.status_code == 303, reply.text
    other = submit(http, {"job": WISH, "prompts": ["a", "b"]})
    made, wanted = job_of(api, reply.headers["location"].rpartition("/")[2]), job_of(api, other)
    told = {"filters", "accept", "repeats", "max_tries", "output", "validation", "thumbnails"}
    assert made.model_dump(include=told) == wanted.model_dump(include=told)
    assert made.only() == wanted.only()
    assert (made.accept, made.repeats, len(made.filters)) == (3, 3, 2)


def test_a_form_without_wishes_asks_for_none(http: httpx.Client, api: RunningApi) -> None:
    reply = post(http, "/new", empty(http))
    made = job_of(api, reply.headers["location"].rpartition("/")[2])
    assert (made.filters, made.accept, made.output) == ((), None, "webdataset")
    assert made.only() == made.only().model_validate({})


@pytest.mark.parametrize(
    ("filled", "field"),
    [
        ({"filter:near_duplicate": "drop", "least:near_duplicate": "99"}, "filter:near_duplicate"),
        ({"least:prompt_agreement": "much"}, "least:prompt_agreement"),
        ({"least:prompt_agreement": "0.5"}, "filter:prompt_agreement"),
        ({"filter:prompt_agreement": "burn"}, "filter:prompt_agreement"),
        ({"filter:prompt_agreement": "keep", "least:prompt_agreement": "nan"}, "least:"),
        ({"model": "sd15", "filter:prompt_agreement": "keep"}, "filter:prompt_agreement"),
        ({"accept": "4"}, "accept"),
        ({"max_tries": "1000"}, "max_tries"),
        ({"max_images": "0"}, "max_images"),
        ({"max_device_seconds": "-1"}, "max_device_seconds"),
        ({"deadline": "2020-01-01T00:00"}, "deadline"),
        ({"deadline": "tomorrow"}, "deadline"),
        ({"output": "zip"}, "output"),
        ({"output": "parquet", "validation": "2"}, "validation"),
        ({"thumbnails": "64"}, "thumbnails"),
    ],
)
def test_what_is_wrong_stands_at_its_field(
    http: httpx.Client, filled: dict[str, str], field: str
) -> None:
    reply = post(http, "/new", empty(http) | filled)
    assert reply.status_code == 422
    marked = re.findall(r'id="([^"]+)" name="[^"]+"[^>]* aria-invalid="true"', reply.text)
    assert len(marked) == 1, reply.text[reply.text.index('id="wrong"') :][:300]
    assert marked[0].startswith(field)
    assert reply.text.count('id="wrong-here"') == 1
    assert f'href="#{marked[0]}"' in reply.text
    # What is folded away is not seen: the group of the field is open.
    before = reply.text[: reply.text.index('aria-invalid="true"')]
    assert before[before.rindex("<details") :].partition(">")[0].endswith(" open")
    again = Fields(reply.text).values
    assert {name: again[name] for name in filled if filled[name] not in ("burn", "zip")} == {
        name: value for name, value in filled.items() if value not in ("burn", "zip")
    }


def test_a_picture_is_made_again_with_all_that_its_job_asked_for(
    http: httpx.Client, api: RunningApi
) -> None:
    first = submit(http, {"job": WISH, "prompts": ["a", "b"]})
    reply = post(http, "/new", Fields(http.get(f"/new?job={first}&image=4").text).values)
    assert reply.status_code == 303, reply.text
    one, again = (job_of(api, i) for i in (first, reply.headers["location"].rpartition("/")[2]))
    kept = {"filters", "max_tries", "output", "validation", "thumbnails"}
    assert again.model_dump(include=kept) == one.model_dump(include=kept)
    assert (again.accept, again.images, again.only()) == (1, 1, one.only())


def test_a_deadline_that_has_passed_is_asked_for_no_more(
    http: httpx.Client, api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = submit(http, {"job": {"deadline": "2099-12-01T18:00:00Z"}, "prompts": ["a"]})
    page = f"/new?job={first}&image=0"
    assert Fields(http.get(page).text).values["deadline"] == "2099-12-01T18:00:00"
    monkeypatch.setattr("jobs.page.routes_new.time.time_ns", lambda: 4_200_000_000 * 10**9)
    assert Fields(http.get(page).text).values["deadline"] == ""


def test_limits_are_the_same_after_a_form() -> None:
    fields = {"max_images": "7", "max_device_seconds": "0.1", "deadline": "2026-12-01T18:00"}
    budget = checked_change(budget_from(fields))
    assert budget_values(budget) == fields | {"deadline": "2026-12-01T18:00:00"}


def test_an_error_about_nothing_in_the_form_marks_nothing() -> None:
    assert wrong_field(None, EMPTY) == ""
    assert wrong_field(NoCapacity("too many jobs are open"), EMPTY) == ""
