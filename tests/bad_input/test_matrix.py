"""The list of bad inputs to be ready for, and which test has each, or why there is none."""

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bad_input.test_on_the_command_line import COMMANDS
from tests.bad_input.test_over_http import CASES

ROOT = Path(__file__).resolve().parents[2]
ACCEPTED = "tests/bad_input/test_accepted.py"
WEIGHTS = "tests/workers/test_weight_files.py"
REPLY = "reply"


@dataclass(frozen=True)
class Input:
    """A bad input; its cases by title, its tests by `file::name`, or why neither is needed."""

    what: str
    cases: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    absent: str = ""


SOURCES = "tests/jobs/test_sources.py"
_OTHER = f"{SOURCES}::test_a_parquet_file_with_other_columns_is_named"
INPUTS = (
    Input("NaN in a number", ("NaN",)),
    Input("1e999 in a number", ("1e999", "1e999 in a column")),
    Input("a seed of 64 bits", ("seed of 64 bits", "row seed of 33 bits")),
    Input("a number of 5000 digits", ("5000 digits", "400 digits in a column")),
    Input("100 000 nested arrays", ("deep nesting", "deep line")),
    Input("bad UTF-8", ("bad UTF-8", "not UTF-8")),
    Input(
        "a byte order mark", tests=(f"{ACCEPTED}::test_a_byte_order_mark_is_no_part_of_the_text",)
    ),
    Input("bytes after the object", ("trailing bytes",)),
    Input("half a surrogate pair", ("lone surrogate", "surrogate in a line")),
    Input("NUL in a prompt", ("NUL", "NUL in a line", "NUL in a column")),
    Input("a misspelt field", ("unknown field", "unknown field of the recipe")),
    Input("text or true for a number", ("text for a number", "true for a number")),
    Input("a field twice", ("twin fields", "twin fields in a line")),
    Input("a body of 64 MB", ("a huge body", "a huge body in chunks", "long prompt")),
    Input("an empty body", ("empty body",)),
    Input("another content type", ("another type",)),
    Input("a compressed body", ("gzip",)),
    Input("no prompts", ("no prompts", "empty file")),
    Input("blank prompts", ("only blanks", "only blank lines", "blank line", "blank prompt")),
    Input("two million prompts in a body", ("2 M prompts", "10001 prompts")),
    Input(
        "more than 77 tokens",
        tests=(f"{ACCEPTED}::test_a_prompt_beyond_the_encoder_is_accepted_with_a_warning",),
    ),
    Input("a width of 1000003", ("width beyond", "width of 400 digits")),
    Input("a width that no net can make", ("width not of 16",)),
    Input("a size of nothing", ("zero height", "negative height")),
    Input("no steps, or 10 000", ("zero steps", "10000 steps")),
    Input("negative guidance", ("negative guidance",)),
    Input("an unknown model", ("unknown model",)),
    Input("a path or an address for a LoRA", ("a style's path", "a model's address")),
    Input(
        "a key out of its folder",
        ("prefix upwards", "prefix encoded", "prefix with a backslash", "long prefix"),
        ("tests/jobs/test_store.py::test_a_key_out_of_its_folder_is_refused",),
    ),
    Input(
        "separators in a tenant or a job's id",
        ("job id with braces", "job id with a line", "tenant with a bar", "tenant with a line"),
    ),
    Input("a prompt file that is missing", ("file missing", "no file")),
    Input("a prompt file that cannot be read", ("file is a folder",)),
    Input(
        "a prompt file changed after submission",
        tests=("tests/jobs/test_api_house.py::test_a_prompt_file_of_another_version_is_refused",),
    ),
    Input(
        "a parquet bomb",
        tests=(f"{SOURCES}::test_a_parquet_bomb_ends_its_own_process_alone",),
    ),
    Input("parquet without prompts", tests=(_OTHER,)),
    Input("parquet with a column of another type", tests=(_OTHER,)),
    Input("parquet with nulls", tests=(_OTHER,)),
    Input("parquet encrypted or cut", ("parquet",), (_OTHER,)),
    Input("a line beyond a megabyte", ("long line", "long line at the end of many")),
    Input("mixed ends of lines", tests=(f"{ACCEPTED}::test_line_ends_may_be_mixed",)),
    Input("a bad line far down", ("late bad line",)),
    Input(
        "a tar with ../ in it",
        tests=("tests/test_security.py::test_no_archive_is_ever_unpacked",),
    ),
    Input("a picture of 12000 x 12000", absent="no picture is taken in (no image-to-image)"),
    Input("a picture of 20000 x 20000", absent="no picture is taken in (no image-to-image)"),
    Input("damaged safetensors", tests=(f"{WEIGHTS}::test_a_damaged_file_says_what_is_wrong",)),
    Input("pickled weights", tests=(f"{WEIGHTS}::test_a_pickle_is_refused_whatever_its_name",)),
    Input("a used key with another body", ("a key that another body had",)),
    Input("a key of 129 characters", ("key 'aaaaaaaaa'",)),
    Input(
        "no key to the API",
        tests=("tests/jobs/test_tenants.py::test_no_route_opens_without_a_key",),
    ),
    Input(
        "another tenant's job",
        ("another tenant's job: GET itself",),
        ("tests/jobs/test_tenants.py::test_no_tenant_reaches_anothers_job_on_any_route",),
    ),
    Input("a webhook to the inside", absent="there are no webhooks"),
    Input(
        "limits of priority, weight and shards",
        ("priority 999", "too many shards", "a heavy style", "a light style"),
    ),
    Input(
        "a store's address, keys, an API that is away", ("store's address", "no keys", "API away")
    ),
)
TITLES = {case.title for case in CASES} | {command.title for command in COMMANDS}


def test_all_are_there() -> None:
    assert len(INPUTS) == 53


@pytest.mark.parametrize("one", INPUTS, ids=lambda one: one.what)
def test_it_is_tested_or_cannot_happen(one: Input) -> None:
    assert one.cases or one.tests or one.absent
    assert set(one.cases) <= TITLES
    for test in one.tests:
        file, _, name = test.partition("::")
        tree = ast.parse((ROOT / file).read_text("utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, test
