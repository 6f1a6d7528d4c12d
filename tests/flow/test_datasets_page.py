"""docs/datasets.md, read from its top: its files are written, its commands and programs are run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.s3_client import s3_secrets
from tests.api_renderer import rendering
from tests.api_servers import RunningApi

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"(?:^<!-- (\S+) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks_of(page: str) -> list[tuple[str | None, str, str]]:
    """Of a page of the documents: the file it is, if one, its language and text."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    return [(match[1], match[2], match[3]) for match in _BLOCK.finditer(text)]


BLOCKS = blocks_of("datasets.md")


def environment(api: RunningApi, folder: Path) -> dict[str, str]:
    """One in which `fewstep` and `python` are ours, and speak to this API."""
    access, secret = s3_secrets(api.settings)
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_OFFLINE": "1",
        "FEWSTEP_HOME": str(folder / "home"),
        "FEWSTEP_API_URL": api.url,
        "FEWSTEP_S3_ENDPOINT": str(api.settings.s3_endpoint),
        "FEWSTEP_S3_BUCKET": api.settings.s3_bucket,
        "FEWSTEP_S3_ACCESS_KEY": str(access),
        "FEWSTEP_S3_SECRET_KEY": str(secret),
    }


def test_every_block_is_a_file_or_is_run() -> None:
    assert all(name or kind in ("sh", "python") for name, kind, _ in BLOCKS)
    assert len([kind for _, kind, _ in BLOCKS if kind == "sh"]) >= 2


@pytest.mark.timeout(600)
def test_a_reader_gets_what_the_page_says(api: RunningApi, tmp_path: Path) -> None:
    for name, _, text in BLOCKS:
        if name:
            (tmp_path / name).write_text(text, "utf-8")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    with rendering(api):
        for name, kind, text in BLOCKS:
            if name:
                continue
            run_block(api, tmp_path, kind, text)


def run_block(api: RunningApi, folder: Path, kind: str, text: str) -> None:
    """Run a block of a page in a folder, as its reader does against this API."""
    shell = ["bash", "-euo", "pipefail", "-c", text]
    done = subprocess.run(
        shell if kind == "sh" else [sys.executable, "-W", "error", "-c", text],
        cwd=folder,
        env=environment(api, folder),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, text + done.stdout + done.stderr
