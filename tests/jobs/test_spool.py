"""Rows are spooled in pages of constant size and come back by range, exactly."""

from collections.abc import Iterator
from typing import Any

import pytest

from jobs.errors import InvalidInput, NotFound
from jobs.job import PAGE_ROWS, Job
from jobs.rows import Row
from jobs.spool import fetch_rows, spool_rows
from jobs.store import Store
from tests.made_shards import made_job

pytest_plugins = ["tests.s3_servers"]

PREFIX = "datasets/_scratch/default/j/rows/"


def spooled(store: Store, rows: list[Row]) -> Job:
    return made_job(len(rows)).model_copy(update={"rows": spool_rows(store, rows, PREFIX)})


def columns_of(store: Store, *values: Any) -> dict[str, str]:
    rows = [Row(prompt="p", extra={"own": value}) for value in values]
    return dict(spool_rows(store, rows, PREFIX).columns)


def test_rows_come_back_by_range_across_pages(store: Store) -> None:
    rows = [Row(prompt=f"p{n}\u2028é🌍", extra={"n": n}) for n in range(2 * PAGE_ROWS + 5)]
    job = spooled(store, rows)

    assert job.rows.count == len(rows)
    assert len(list(store.list(PREFIX))) == 3
    assert fetch_rows(store, job, 0, 3) == rows[:3]
    assert fetch_rows(store, job, PAGE_ROWS - 1, PAGE_ROWS + 2) == rows[PAGE_ROWS - 1 :][:3]
    assert fetch_rows(store, job, 2 * PAGE_ROWS, len(rows)) == rows[2 * PAGE_ROWS :]


def test_every_field_of_a_row_survives(store: Store) -> None:
    row = Row(
        prompt='a "quoted"\nline',
        negative_prompt="blur",
        seed=2**32 - 1,
        extra={"a": 1, "b": 1.0, "c": True, "d": None, "e": "text", "f": 10**30},
    )

    assert fetch_rows(store, spooled(store, [row]), 0, 1) == [row]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ((True, False), "bool"),
        ((1, None, 2), "int"),
        ((1, 2.5), "float"),
        ((2.5, 1), "float"),
        (("a", 1), "string"),
        ((True, 1), "string"),
        ((2**63,), "string"),
        ((None, None), "string"),
    ],
)
def test_a_column_gets_the_narrowest_kind(store: Store, values: tuple[Any, ...], kind: str) -> None:
    assert columns_of(store, *values) == {"own": kind}


def test_the_digest_is_the_rows_not_their_place(store: Store) -> None:
    rows = [Row(prompt=f"p{n}") for n in range(3)]

    one, same = spool_rows(store, rows, PREFIX), spool_rows(store, rows, "elsewhere/")
    other = spool_rows(store, rows[::-1], PREFIX)

    assert one.sha256 == same.sha256 != other.sha256


def test_a_column_of_our_name_is_refused_naming_the_row(store: Store) -> None:
    rows = [Row(prompt="p"), Row(prompt="p", extra={"sha256": "x"})]

    with pytest.raises(InvalidInput, match=r"row 2: .*'sha256'.*rename it"):
        spool_rows(store, rows, PREFIX)

    assert list(store.list(PREFIX)) == []


def test_rows_that_break_off_leave_no_page(store: Store) -> None:
    def broken() -> Iterator[Row]:
        for n in range(PAGE_ROWS + 1):
            yield Row(prompt=f"p{n}")
        raise InvalidInput("this is not JSON", where="file, line 1002")

    with pytest.raises(InvalidInput, match="line 1002"):
        spool_rows(store, broken(), PREFIX)

    assert list(store.list(PREFIX)) == []


def test_too_many_columns_over_all_rows_are_refused(store: Store) -> None:
    rows = [Row(prompt="p", extra={f"c{n}": n}) for n in range(65)]

    with pytest.raises(InvalidInput, match=r"row 65: .*'c64'"):
        spool_rows(store, rows, PREFIX)


def test_a_page_that_is_gone_is_named(store: Store) -> None:
    job = spooled(store, [Row(prompt="p")])
    store.delete_prefix(PREFIX)

    with pytest.raises(NotFound, match=r"000000\.jsonl"):
        fetch_rows(store, job, 0, 1)
