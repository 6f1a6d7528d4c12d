"""The image: hadolint, who runs in it, what goes into it."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.deploy.manifests import ROOT

DOCKERFILE = ROOT / "deploy" / "image" / "Dockerfile"


def hadolint(file: Path) -> str:
    program = str(Path(sys.executable).with_name("hadolint"))
    done = subprocess.run([program, str(file)], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_hadolint_has_nothing_to_say(tmp_path: Path) -> None:
    assert hadolint(DOCKERFILE) == ""
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python\nRUN cd /x\n", "utf-8")
    assert "DL3006" in hadolint(bad)


def test_it_is_nobodys_root_and_holds_no_secret() -> None:
    text = DOCKERFILE.read_text("utf-8")
    last = text[text.rindex("FROM ") :]
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert not re.search(r"^USER (root|0)", text, re.MULTILINE)
    assert not re.search(r"(?i)password|secret_key|access_key|auth_token=", text)
    assert "RAY_AUTH_MODE=token" in last
    assert "HF_HUB_OFFLINE=1" in last


def test_both_variants_and_the_list_of_packages_are_stages() -> None:
    stages = re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE.read_text("utf-8"), re.MULTILINE)
    assert {"torch-cpu", "torch-cuda", "builder", "sbom", "runtime"} <= set(stages)
    assert stages[-1] == "runtime"


def test_what_is_copied_is_sent_to_the_builder() -> None:
    sent = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines()
        if line.startswith("!")
    }
    copied: set[str] = set()
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE.read_text("utf-8"), re.MULTILINE):
        copied |= set(line.split()[:-1])
    assert copied == sent
    assert all((ROOT / name).exists() for name in sent)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    packages = {name.partition(".")[0] for name in project["tool"]["setuptools"]["packages"]}
    assert packages <= sent


def test_torch_is_pinned_as_the_image_expects() -> None:
    pins = (ROOT / "constraints.txt").read_text("utf-8")
    assert re.search(r"^torch==[0-9.]+$", pins, re.MULTILINE)
