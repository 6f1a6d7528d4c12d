"""Bad input over HTTP is refused with row, field and remedy, and nothing is written."""

import httpx
import pytest

from tests.bad_input.cases import Case
from tests.bad_input.conftest import UrlFor
from tests.bad_input.place_cases import EXTENSIONS, NAMES, OTHERS, SERVERS
from tests.bad_input.request_cases import FORM, JOB, RECIPE
from tests.bad_input.row_cases import FILES, ROWS

CASES = [*FORM, *JOB, *RECIPE, *ROWS, *FILES, *NAMES, *OTHERS, *SERVERS, *EXTENSIONS]


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_bad_input(case: Case, url_for: UrlFor) -> None:
    reply = ask(url_for(case.settings), case)

    problem = reply.json()
    assert (reply.status_code, problem["code"]) == (case.status, case.code), problem
    assert reply.headers["content-type"] == "application/problem+json"
    said = " ".join(str(problem.get(part, "")) for part in ("where", "detail", "remedy"))
    for words in case.says.split("|"):
        assert words in said
    assert all(len(str(value)) <= 200 for value in problem.values())
    assert "secret" not in said


def test_titles_are_unique() -> None:
    titles = [case.title for case in CASES]
    assert len(titles) == len(set(titles))


def ask(url: str, case: Case) -> httpx.Response:
    """The reply to a case's request."""
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        return client.request(case.method, case.path, **case.send)
