"""One bench for every test of the fault suite: a warm process costs ten seconds."""

from collections.abc import Iterator

import pytest

from tests.chaos.bench import Bench, bench


@pytest.fixture(scope="session")
def struck() -> Iterator[Bench]:
    """The bench."""
    with bench() as made:
        yield made
