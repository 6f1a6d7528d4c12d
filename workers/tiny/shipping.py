"""Putting files in place so that no reader ever meets half of one."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def swap_folder(folder: Path) -> Iterator[Path]:
    """A fresh folder to write in; on leaving, each file replaces its namesake in ``folder``.

    Files of ``folder`` that the fresh one lacks are removed, except notes (``*.md``).
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield fresh
        written = {path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file()}
        for relative in sorted(written):
            (folder / relative).parent.mkdir(parents=True, exist_ok=True)
            os.chmod(fresh / relative, 0o644)
            os.replace(fresh / relative, folder / relative)
        for path in [path for path in folder.rglob("*") if path.is_file()]:
            if path.relative_to(folder) not in written and path.suffix != ".md":
                path.unlink()
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text through a temporary name."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)
