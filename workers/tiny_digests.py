"""`python -m workers.tiny_digests`: writes the shipped weights' digests into the catalog."""

import re
import sys
from importlib import resources
from pathlib import Path

from jobs.catalog import SHIPPED
from workers.weights import BUILTIN, digest


def shipped_files() -> list[Path]:
    """The files that make the shipped catalog."""
    return [Path(str(resources.files("jobs").joinpath(name))) for name in SHIPPED]


def with_digests(texts: list[str]) -> list[str]:
    """The catalog's files, each `builtin:` source followed by the digest of what is shipped."""
    for name, folder in BUILTIN.items():
        pattern = rf'(source = "builtin:{name}"\nsha256 = ")[0-9a-f]*(")'
        written = rf"\g<1>{digest(folder)}\g<2>"
        replaced = [re.subn(pattern, written, text) for text in texts]
        texts, found = [text for text, _ in replaced], sum(count for _, count in replaced)
        if found != 1:
            raise ValueError(f"the catalog names builtin:{name} {found} times")
    return texts


def main() -> int:
    """Rewrite the shipped files in place."""
    files = shipped_files()
    for file, text in zip(
        files, with_digests([file.read_text("utf-8") for file in files]), strict=True
    ):
        file.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
