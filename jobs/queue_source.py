"""The queue's Lua: one source, and of it for each op the script that holds what the op needs.

Redis makes every function of a script anew at every call. With all of them that took 14 µs, a fifth
of what a claim, a renewal and a done cost together.
"""

import re
from functools import cache
from importlib.resources import files
from typing import NamedTuple

_FILES = (
    *("queue_base", "queue_order", "queue_steps"),
    *("queue_limits", "queue_jobs", "queue_presence", "shard_queue"),
)
_DEFINITION = re.compile(r"(?:local function (\w+)|local ([\w, ]+) =|function ops\.(\w+))")


def script_text() -> str:
    """The Lua source, ops after what they are made of: by itself a script that knows every op."""
    folder = files("jobs")
    parts = (folder.joinpath(f"{name}.lua") for name in _FILES)
    return "\n".join(part.read_text(encoding="utf-8") for part in parts)


class _Piece(NamedTuple):
    """A statement of the outermost level."""

    text: str
    #: Functions and values by name, an op as `ops.NAME`; where it defines nothing it is always run.
    defines: frozenset[str]
    uses: frozenset[str]


@cache
def script_of(text: str, op: str) -> str:
    """The script of one op: of the source what the op needs, in its order.

    Raises KeyError for an op that the source does not have.
    """
    pieces = _pieces(text)
    owner = {name: piece for piece in pieces for name in piece.defines}
    kept = {piece for piece in pieces if not piece.defines}
    left = [*kept, owner[f"ops.{op}"]]
    while left:
        piece = left.pop()
        kept.add(piece)
        left += {owner[name] for name in piece.uses if name in owner} - kept
    return "\n".join(piece.text for piece in pieces if piece in kept)


@cache
def _pieces(text: str) -> list[_Piece]:
    """The source's outermost statements; each begins at the left edge and has no comments."""
    pieces: list[_Piece] = []
    block: list[str] = []
    for line in re.sub(r"[ \t]*--[^\n]*", "", text).splitlines():
        closes = line in ("end", "}", ")")
        if block and line and not line[0].isspace() and not closes:
            pieces.append(_piece(block))
            block = []
        if line.strip():
            block.append(line)
    return [*pieces, _piece(block)]


def _piece(lines: list[str]) -> _Piece:
    found = _DEFINITION.match(lines[0])
    function, values, op = found.groups() if found else (None, None, None)
    names = [function] if function else [f"ops.{op}"] if op else (values or "").split(", ")
    text = "\n".join(lines)
    return _Piece(text, frozenset(filter(None, names)), frozenset(re.findall(r"\w+", text)))
