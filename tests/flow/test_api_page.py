"""Every snippet of docs/api.md, copied as it stands and run against a real server."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.s3_client import s3_secrets
from tests.api_renderer import rendering
from tests.api_servers import RunningApi

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text("utf-8")
#: The address that the page names.
ADDRESS = "http://127.0.0.1:8700"


@dataclass(frozen=True)
class Snippet:
    """A block of the page, and the heading under which it stands."""

    heading: str
    kind: str
    text: str


def snippets() -> list[Snippet]:
    """All blocks of the page; Python under one heading goes together, as its reader runs it."""
    found: list[Snippet] = []
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        heading = section.splitlines()[0]
        blocks = re.findall(r"^```(\w+)\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
        found += [Snippet(heading, kind, text) for kind, text in blocks if kind != "python"]
        python = "\n".join(text for kind, text in blocks if kind == "python")
        found += [Snippet(heading, "python", python)] if python else []
    return found


SNIPPETS = snippets()
RUN = [one for one in SNIPPETS if one.kind in ("sh", "python")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the page's readers have."""
    (tmp_path / "prompts.txt").write_text("a red circle\na blue star\n", "utf-8")
    pq.write_table(pa.table({"prompt": ["a red circle", "b"]}), tmp_path / "rows.parquet")
    (line,) = (one.text for one in SNIPPETS if one.kind == "json" and "custom_id" in one.text)
    (tmp_path / "requests.jsonl").write_text(line, "utf-8")
    return tmp_path


@pytest.fixture
def environment(api: RunningApi, folder: Path) -> Iterator[dict[str, str]]:
    """An environment in which `fewstep` and `python` are ours, while somebody renders."""
    access, secret = s3_secrets(api.settings)
    with rendering(api):
        yield os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HF_HOME": str(folder / "hf"),
            "HF_HUB_OFFLINE": "1",
            "FEWSTEP_HOME": str(folder / "home"),
            "FEWSTEP_API_KEY": "none",
            "FEWSTEP_S3_ENDPOINT": str(api.settings.s3_endpoint),
            "FEWSTEP_S3_BUCKET": api.settings.s3_bucket,
            "FEWSTEP_S3_ACCESS_KEY": str(access),
            "FEWSTEP_S3_SECRET_KEY": str(secret),
        }


@pytest.mark.parametrize("snippet", RUN, ids=[f"{one.heading} {one.kind}" for one in RUN])
def test_a_snippet_runs(
    snippet: Snippet, api: RunningApi, environment: dict[str, str], folder: Path
) -> None:
    text = snippet.text.replace(ADDRESS, api.url)
    shell = ["bash", "-euo", "pipefail", "-c"]
    command = [*shell, text] if snippet.kind == "sh" else [sys.executable, "-c", text]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert '"code"' not in done.stdout, "curl got a problem"
    if "load_dataset" in text:
        assert (folder / "dataset" / "_SUCCESS").exists()
        assert done.stdout.splitlines()[-1] == "done 4 of 4"
    if "/events" in text:
        assert "event: end" in done.stdout
        assert '"complete":true' in done.stdout


def test_what_is_not_run_reads_as_what_it_is() -> None:
    for snippet in SNIPPETS:
        if snippet not in RUN:
            assert snippet.kind == "json", snippet.heading
            json.loads(snippet.text)
    assert len(RUN) >= 6


def test_each_way_in_is_shown_and_run() -> None:
    """curl, the client in ten lines, and OpenAI's own client."""
    ways = {(one.heading, one.kind): one.text for one in RUN}
    assert "curl" in ways["A first job", "sh"]
    assert "from openai import" in ways["For OpenAI's clients", "python"]
    client = ways["A first job", "python"]
    assert "from fewstep import Client" in client
    assert len([line for line in client.splitlines() if line.strip()]) <= 10
