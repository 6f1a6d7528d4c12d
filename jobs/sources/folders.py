"""Prompt files on this machine: one, a folder of them, or a dataset that `datasets` saved."""

import json
from collections.abc import Iterator
from pathlib import Path

from jobs.errors import InvalidInput
from jobs.sources.reading import SUFFIXES, Reading, format_of, read_records
from jobs.sources.records import Record
from jobs.sources.tables import table_records

#: What `Dataset.save_to_disk` writes beside its Arrow files, and `DatasetDict` above its splits.
_STATE, _SPLITS = "state.json", "dataset_dict.json"


def path_records(path: Path, reading: Reading) -> Iterator[Record]:
    """The records of a file, or of a folder's files in the order of their names.

    Raises InvalidInput for what cannot be read or is of no known kind.
    """
    if not path.is_dir():
        yield from _file_records(path, path.name, reading)
    elif (path / _SPLITS).is_file():
        raise InvalidInput(
            "this dataset has several splits", where=str(path), remedy="name the folder of one"
        )
    elif (path / _STATE).is_file():
        yield from _saved_records(path, reading)
    else:
        yield from _folder_records(path, reading)


def check_path(path: Path) -> None:
    """Raise InvalidInput where a file is of no known kind or cannot be opened."""
    if path.is_dir():
        return
    if format_of(path.name) is None:
        raise InvalidInput(
            "a prompt file of this kind is not known",
            where=str(path),
            remedy=f"name it {', '.join(SUFFIXES)} or .toml (a template), or name a folder",
        )
    try:
        path.open("rb").close()
    except OSError as error:
        raise InvalidInput(
            f"the prompt file cannot be read: {error.strerror}",
            where=str(path),
            remedy="give the path of a prompt file or folder, or - for standard input",
        ) from error


def _file_records(path: Path, name: str, reading: Reading) -> Iterator[Record]:
    check_path(path)
    source = format_of(path.name)
    assert source is not None
    with path.open("rb") as file:
        yield from read_records(file, source, name, reading)


def _folder_records(path: Path, reading: Reading) -> Iterator[Record]:
    files = sorted(one for one in path.rglob("*") if one.is_file() and format_of(one.name))
    if not files:
        raise InvalidInput(
            "there is no prompt file in it",
            where=str(path),
            remedy=f"known kinds: {', '.join(SUFFIXES)}",
        )
    for one in files:
        yield from _file_records(one, one.relative_to(path).as_posix(), reading)


def _saved_records(path: Path, reading: Reading) -> Iterator[Record]:
    try:
        state = json.loads((path / _STATE).read_text("utf-8"))
        names = [str(one["filename"]) for one in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(
            "this does not read as a dataset that was saved", where=str(path / _STATE)
        ) from error
    for name in names:
        if "/" in name or name.startswith("."):
            raise InvalidInput("a file of it lies elsewhere", where=str(path / _STATE))
        try:
            with (path / name).open("rb") as file:
                yield from table_records(file, "arrow", f"{path.name}/{name}", reading.drop)
        except OSError as error:
            raise InvalidInput(
                f"the file cannot be read: {error.strerror}", where=str(path / name)
            ) from error
