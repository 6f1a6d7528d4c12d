"""Conditions on rows: what they mean, and that nothing but a condition is read."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from jobs.errors import InvalidInput
from jobs.where import parse_where

SCHEMA = pa.schema(
    [
        pa.field("shape", pa.string()),
        pa.field("seed", pa.int64()),
        pa.field("score", pa.float64()),
        pa.field("good", pa.bool_()),
        pa.field("not", pa.string()),
        pa.field("styles", pa.list_(pa.string())),
    ]
)
ROWS = [
    {"shape": "star", "seed": 1, "score": 0.5, "good": True, "not": "a"},
    {"shape": "circle", "seed": 2, "score": 0.9, "good": False, "not": "b"},
    {"shape": "it's", "seed": -3, "score": None, "good": None, "not": None},
    {"shape": None, "seed": 4, "score": 1.0, "good": True, "not": "a"},
]
TABLE = pa.Table.from_pylist(ROWS, schema=SCHEMA)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("shape = 'star'", [0]),
        ('shape == "star"', [0]),
        ("shape = 'it''s'", [2]),
        ("shape != 'star'", [1, 2]),
        ("not shape = 'star'", [1, 2]),
        ("shape contains 'i'", [1, 2]),
        ("shape not contains 'i'", [0]),
        ("shape in ('star', 'circle')", [0, 1]),
        ("shape not in ('star')", [1, 2]),
        ("shape is null", [3]),
        ("shape is not null", [0, 1, 2]),
        ("seed >= 2 and score < 1", [1]),
        ("seed > 1 or good = true", [0, 1, 3]),
        ("seed = 1 or seed = 2 and good = true", [0]),
        ("(seed = 1 or seed = 2) and good = true", [0]),
        ("NOT NOT seed < 2 AND seed > -5", [0, 2]),
        ("seed > 1.5", [1, 3]),
        ("score >= 1", [3]),
        ("score != 0.5", [1, 3]),
        ("good = false or score is null", [1, 2]),
        ("`not` = 'a'", [0, 3]),
    ],
)
def test_conditions_mean_what_they_say(text: str, rows: list[int]) -> None:
    found = parse_where(text, SCHEMA).matches(TABLE)
    assert [number for number, matches in enumerate(found) if matches] == rows


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a column is missing, at character 1"),
        ("shape", "a test is missing"),
        ("shape =", "a value is missing, at character 8"),
        ("colour = 'red'", "there is no column 'colour', at character 1"),
        ("shape = star", "star is no value of a column of string"),
        ("shape = 1", "1 is no value of a column of string"),
        ("seed = '1'", "no value of a column of int64"),
        ("seed = true", "true is no value"),
        ("seed = 99999999999999999999", "no value of a column of int64"),
        ("seed contains '1'", "seed is no text"),
        ("styles = 'x'", "not to be compared"),
        ("(seed = 1", "')' is missing"),
        ("seed = 1)", "it does not end here, at character 9"),
        ("seed = 1 seed = 2", "it does not end here"),
        ("seed in ()", "no value of a column"),
        ("seed is 1", "'null' is missing"),
        ("shape = 'star", "is not understood, at character 9"),
        ("seed = 1; drop", "is not understood"),
        ("__import__('os')", "there is no column '__import__'"),
        ("(" * 60 + "seed = 1" + ")" * 60, "nested"),
        ("not " * 10_000 + "seed = 1", "longer than"),
    ],
)
def test_what_is_no_condition_is_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_where(text, SCHEMA)
    assert says in refused.value.message
    assert refused.value.where == "where"


def test_a_column_that_a_shard_lacks_is_null_there() -> None:
    old = TABLE.drop_columns(["score"])
    assert parse_where("score is null and seed = 1", SCHEMA).matches(old) == [True] + [False] * 3


WORDS = ["shape", "seed", "=", "<", "(", ")", "and", "or", "not", "in", "'x'", "1", "null", "is"]


@settings(max_examples=100, deadline=None)
@given(some.lists(some.sampled_from(WORDS), max_size=12).map(" ".join) | some.text(max_size=40))
def test_any_text_is_a_condition_or_is_refused(text: str) -> None:
    try:
        found = parse_where(text, SCHEMA).matches(TABLE)
    except InvalidInput:
        return
    assert len(found) == len(ROWS)
