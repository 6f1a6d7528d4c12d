"""Each promise names tests, and they exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "guarantees.md").read_text("utf-8")
PROMISES = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
TEST = re.compile(r"`(tests/[a-z_/]+\.py)::(test_[a-z0-9_]+)`")


@pytest.mark.parametrize("number", range(1, 10))
def test_a_promise_is_backed_by_tests_that_exist(number: int) -> None:
    promise = PROMISES[number - 1]
    assert promise.startswith(f"P{number}. ")
    named = TEST.findall(promise)
    assert named, promise
    for file, name in named:
        tree = ast.parse((ROOT / file).read_text("utf-8"))
        there = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert name in there, f"{file} has no {name}"


def test_what_is_not_promised_is_said() -> None:
    assert PROMISES[9].startswith("Not promised")
    assert len(PROMISES) == 10


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
