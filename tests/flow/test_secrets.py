"""No secret is in anything that a stack writes while it does its work."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from fewstep.local import Stack
from fewstep.stack_state import STATE_FILE
from tests.canaries import command_lines_with, files_with, texts_with

pytestmark = pytest.mark.ray

SAY: Callable[[str], None] = print


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack.start(tmp_path_factory.mktemp("stack"), 1, SAY) as running:
        yield running


def command(stack: Stack, *arguments: str) -> str:
    """All that a command says."""
    done = subprocess.run(
        [sys.executable, "-m", "fewstep", *arguments],
        env={**os.environ, "FEWSTEP_HOME": str(stack.home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_no_secret_is_written_or_said(stack: Stack, tmp_path: Path) -> None:
    """Redis's password, the store's key, Ray's token, and what signs a link."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle\na blue star\n", "utf-8")
    said = {"submit": command(stack, "submit", str(prompts), "--shard-images", "1")}
    job = said["submit"].splitlines()[0]
    out = tmp_path / "out"
    for arguments in (
        ("watch", job),
        ("show", job, "--json"),
        ("status", "--json"),
        ("doctor", "--json"),
        ("fetch", job, "--out", str(out)),
        ("fetch", job, "--out", str(prompts)),
        ("restore",),
    ):
        said[" ".join(arguments)] = command(stack, *arguments)
    assert "files are in" in said[f"fetch {job} --out {out}"]

    api = stack.settings.api_url
    results = httpx.get(f"{api}/v1/jobs/{job}/results", trust_env=False).json()
    link = next(file["link"] for file in results["files"] if file["name"].endswith(".tar"))
    assert httpx.get(link, trust_env=False).status_code == 200
    # A link for another key: what the store says of it must not hold the signature either.
    httpx.get(link.replace("00000.tar", "99999.tar"), trust_env=False)
    for path in (f"/v1/jobs/{job}", "/v1/cluster", f"/v1/jobs/{job}/events", "/readyz"):
        said[path] = httpx.get(api + path, trust_env=False, timeout=60).text

    token = Path(stack.state.ray_folder) / "auth_token"
    password = urlsplit(stack.state.redis_url).password
    assert password
    assert stack.state.s3_secret_key
    secrets = {
        "Redis's password": password,
        "the store's key": stack.state.s3_secret_key,
        "Ray's token": token.read_text("utf-8").strip(),
        "a link's signature": parse_qs(urlsplit(link).query)["X-Amz-Signature"][0],
    }
    assert all(len(secret) >= 32 for secret in secrets.values())
    state = stack.home / STATE_FILE
    assert state.stat().st_mode & 0o777 == token.stat().st_mode & 0o777 == 0o600
    # The search finds them where they are.
    assert len(files_with(secrets, stack.home)) >= 2
    assert files_with(secrets, stack.home, [state, token]) == []
    assert files_with(secrets, Path(stack.state.ray_folder), [token]) == []
    assert files_with(secrets, out) == []
    assert texts_with(secrets, said) == []
    assert command_lines_with(secrets) == []
