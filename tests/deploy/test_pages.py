"""The runbook and deploy/README.md: every command, module, setting and file they name exists."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from fewstep.cli import app
from jobs.settings import Settings
from tests.deploy.manifests import ROOT

PAGES = [ROOT / "docs" / "operations.md", ROOT / "deploy" / "README.md"]
#: What may stand before a command of ours.
_COMMAND = re.compile(
    r"(?:^|[`$(|;]\s*|-- |api )fewstep ((?:[a-z][a-z-]*)(?: [a-z]+)?)(.*?)(?:`|$)", re.MULTILINE
)


def known(words: list[str]) -> Any:
    """The command of these words; None where there is none."""
    command: Any = typer.main.get_command(app)
    for word in words:
        if not hasattr(command, "commands"):
            break
        command = command.commands.get(word)
    return command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_their_options_exist(page: Path) -> None:
    found = _COMMAND.findall(page.read_text("utf-8"))
    assert found
    for words, rest in found:
        command = known(words.split())
        assert command is not None, f"{page.name}: fewstep {words}"
        options = {name for one in command.params for name in one.opts}
        for option in re.findall(r"(?<!\S)(--[a-z-]+)", rest):
            assert option in options, f"{page.name}: fewstep {words} {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_settings_and_files_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    for module in re.findall(r"python -m ([a-z_.]+[a-z])", text):
        assert importlib.util.find_spec(module), module
    for name in re.findall(r"FEWSTEP_([A-Z0-9_]+[A-Z0-9])\b(?!_\*)", text):
        assert name.lower() in Settings.model_fields, name
    for file in re.findall(r"(?<![\w/.-])((?:deploy|docs|tests)/[\w./-]*\w)", text):
        assert (ROOT / file).exists(), file
    for link in re.findall(r"\]\(([^)#:]+)", text):
        assert (page.parent / link).exists(), link
