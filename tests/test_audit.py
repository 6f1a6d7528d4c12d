"""`make audit`: the list of what is installed, and what is said of it, with and without network."""

import http.server
import importlib.metadata
import importlib.util
import json
import sysconfig
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.servers import free_port

SCRIPT = Path(__file__).resolve().parents[1] / ".ci" / "audit.py"
FAULT = {
    "id": "GHSA-0000-0000-0000",
    "summary": "a fault made up for this test",
    "affected": [
        {
            "package": {"name": "six", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "9.9.9"}]}],
        }
    ],
}


def audit() -> ModuleType:
    """The script as a module; it reads its variables when loaded."""
    spec = importlib.util.spec_from_file_location("audit_script", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers as the vulnerability service does: a fault in `six`, none in anything else."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps({"vulns": [FAULT]} if asked["package"]["name"] == "six" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A vulnerability service of our own."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("AUDIT_OSV_URL", f"http://127.0.0.1:{server.server_port}/v1/query")
        yield
        server.shutdown()
        thread.join()


@pytest.fixture
def pinned(tmp_path: Path) -> Path:
    path = tmp_path / "pinned.txt"
    path.write_text("six==1.17.0\nidna==3.10\n", "utf-8")
    return path


@pytest.mark.usefixtures("service")
def test_a_known_fault_fails_it(
    tmp_path: Path, pinned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit().main(tmp_path / "build", pinned) == 1
    assert "six 1.17.0: GHSA-0000-0000-0000, fixed in 9.9.9" in capsys.readouterr().out

    listed = json.loads((tmp_path / "build" / "sbom.json").read_text("utf-8"))
    assert (listed["bomFormat"], listed["metadata"]["component"]["name"]) == (
        "CycloneDX",
        "fewstep",
    )
    there = {plain(one["name"]): one["version"] for one in listed["components"]}
    for name in ("torch", "ray", "redis", "boto3", "diffusers", "safetensors", "pydantic"):
        assert there[name] == importlib.metadata.version(name)
    # Not all of sys.path: Ray puts a folder of its own on it, with packages of its own.
    own = [sysconfig.get_path(kind) for kind in ("purelib", "platlib")]
    installed = {plain(one.name) for one in importlib.metadata.distributions(path=own)}
    assert installed - set(there) <= {"fewstep"}
    text = json.dumps(listed)
    assert "file://" not in text
    assert str(Path.home()) not in text


@pytest.mark.usefixtures("service")
def test_without_known_faults_it_passes(tmp_path: Path, pinned: Path) -> None:
    pinned.write_text("idna==3.10\n", "utf-8")
    assert audit().main(tmp_path / "build", pinned) == 0


def test_without_a_network_it_says_so(
    tmp_path: Path,
    pinned: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AUDIT_OSV_URL", f"http://127.0.0.1:{free_port()}/v1/query")
    module = audit()
    monkeypatch.setattr(module, "write_list", lambda file: 0)
    assert module.main(tmp_path / "build", pinned) == 0
    assert "NOT AUDITED" in capsys.readouterr().out
    monkeypatch.setenv("AUDIT_MUST_ASK", "1")
    assert module.main(tmp_path / "build", pinned) == 3


def plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
