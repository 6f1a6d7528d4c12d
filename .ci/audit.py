"""`make audit`: what this environment holds (build/sbom.json), and what is known against it.

The list is made without a network. Asking for known faults needs one; where it is away this is
said, and is no failure, unless AUDIT_MUST_ASK is set (a release sets it).
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SERVICE = os.environ.get("AUDIT_OSV_URL", "https://api.osv.dev/v1/query")
#: How pip-audit's last words look when nobody answered it.
AWAY = re.compile(r"ConnectionError|NameResolution|Max retries|timed out|ServiceError|ProxyError")


def main(folder: Path, pinned: Path) -> int:
    """0: nothing is known, or nobody could be asked; 1: something is; 3: pip-audit failed."""
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{write_list(folder / 'sbom.json')} packages are listed in {folder / 'sbom.json'}")
    asked = subprocess.run(
        [
            *(str(beside("pip-audit")), "--requirement", str(pinned), "--no-deps", "--disable-pip"),
            *("--vulnerability-service", "osv", "--osv-url", SERVICE, "--timeout", "10"),
            *("--format", "json", "--progress-spinner", "off"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        known = faults(json.loads(asked.stdout))
    except json.JSONDecodeError:
        last = (asked.stderr.strip().splitlines() or ["no word"])[-1]
        return not_asked(last) if AWAY.search(last) else failed(last)
    for fault in known:
        print(fault)
    print(f"{len(known)} known faults in {pinned.name}, says {SERVICE}")
    return 1 if known else 0


def write_list(file: Path) -> int:
    """Write the CycloneDX list of this environment; how many packages are in it."""
    subprocess.run(
        [
            *(str(beside("cyclonedx-py")), "environment", "--output-format", "JSON"),
            # Validating takes ten seconds, and its maker's output is valid.
            *("--no-validate", "--output-reproducible", "--output-file", str(file)),
            *("--pyproject", str(ROOT / "pyproject.toml"), sys.executable),
        ],
        check=True,
    )
    return len(json.loads(file.read_text("utf-8"))["components"])


def beside(program: str) -> Path:
    """A program of the same environment as this Python."""
    return Path(sys.executable).with_name(program)


def faults(report: dict[str, Any]) -> list[str]:
    """A line for each known fault in pip-audit's report."""
    return [
        f"{package['name']} {package['version']}: {fault['id']}, "
        f"fixed in {', '.join(fault['fix_versions']) or 'no release yet'}"
        for package in report["dependencies"]
        for fault in package.get("vulns", ())
    ]


def not_asked(why: str) -> int:
    """Say that nothing was audited."""
    print(f"NOT AUDITED: {SERVICE} cannot be reached ({why[:200]})")
    return 3 if os.environ.get("AUDIT_MUST_ASK") else 0


def failed(why: str) -> int:
    """Say that pip-audit itself failed."""
    print(f"pip-audit failed: {why[:300]}")
    return 3


if __name__ == "__main__":
    sys.exit(main(ROOT / "build", ROOT / "constraints.txt"))
