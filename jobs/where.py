"""Where: a condition on the columns of a dataset's rows, read from text; nothing in it is run.

    condition  = all { "or" all }
    all        = one { "and" one }
    one        = "not" one | "(" condition ")" | test
    test       = column, then one of
                 ( "=" | "!=" | "<" | "<=" | ">" | ">=" ) literal
                 [ "not" ] "in" "(" literal { "," literal } ")"
                 [ "not" ] "contains" text
                 "is" [ "not" ] "null"
    column     = a name, or `any name` between backticks
    literal    = text | number | "true" | "false"
    text       = between ' or ", with the mark doubled to stand for itself

Words may be in upper or lower case. A test of a value that is null is neither true nor false, as in
SQL, and a row of which the condition is not true does not match.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.errors import InvalidInput

MAX_TEXT, MAX_DEPTH = 10_000, 50

Value = str | int | float | bool
#: Rows -> a mask of them: true, false or null.
Mask = Callable[[pa.Table], Any]

_TOKEN = re.compile(
    r"\s*(?:(?P<number>-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<text>'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\")"
    r"|`(?P<quoted>[^`]+)`|(?P<word>[A-Za-z_]\w*)|(?P<mark><=|>=|!=|==|[=<>(),]))"
)
_COMPARE: dict[str, Any] = {
    "=": pc.equal,
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_WORDS = frozenset({"and", "or", "not", "in", "is", "null", "contains", "true", "false"})


@dataclass(frozen=True)
class Where:
    """A condition that was read: the columns that it asks for by type, and which rows it fits."""

    columns: Mapping[str, Any]
    mask: Mask

    def matches(self, rows: pa.Table) -> list[bool]:
        """Of each row, whether the condition is true."""
        for name, kind in self.columns.items():
            # In a shard of an earlier version nobody has a value in it.
            if name not in rows.column_names:
                rows = rows.append_column(name, pa.nulls(rows.num_rows, kind))
        found: list[bool] = pc.fill_null(self.mask(rows), False).to_pylist()
        return found


def parse_where(text: str, schema: pa.Schema) -> Where:
    """The condition of a text about columns of `schema`; raises InvalidInput saying where it ends.

    Every column must be there, and its values must be of the kind that they are compared with.
    """
    if len(text) > MAX_TEXT:
        raise InvalidInput(f"the condition is longer than {MAX_TEXT} characters", where="where")
    reader = _Reader(text, schema)
    mask = reader.condition(0)
    reader.end()
    return Where(reader.columns, mask)


@dataclass
class _Reader:
    text: str
    schema: pa.Schema
    columns: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._tokens = list(_tokens(self.text))
        self._at = 0

    def condition(self, depth: int) -> Mask:
        if depth > MAX_DEPTH:
            raise self._wrong(f"it is nested more than {MAX_DEPTH} deep")
        return self._joined("or", pc.or_kleene, lambda: self._all(depth))

    def end(self) -> None:
        if self._at < len(self._tokens):
            raise self._wrong("it does not end here")

    def _all(self, depth: int) -> Mask:
        return self._joined("and", pc.and_kleene, lambda: self._one(depth))

    def _joined(self, word: str, join: Any, read: Callable[[], Mask]) -> Mask:
        found = [read()]
        while self._take("word", word):
            found.append(read())
        return found[0] if len(found) == 1 else _folded(found, join)

    def _one(self, depth: int) -> Mask:
        negated = False
        while self._take("word", "not"):
            negated = not negated
        if self._take("mark", "("):
            inner = self.condition(depth + 1)
            self._must("mark", ")")
        else:
            inner = self._test()
        return _inverted(inner) if negated else inner

    def _test(self) -> Mask:
        name, kind = self._column()
        if self._take("word", "is"):
            negated = self._take("word", "not")
            self._must("word", "null")
            return _inverted(_null(name)) if negated else _null(name)
        mark = self._peek("mark")
        if mark in _COMPARE:
            self._at += 1
            value = self._literal(kind)
            return _compared(name, _COMPARE[mark], value, kind)
        negated = self._take("word", "not")
        if self._take("word", "in"):
            inner = _among(name, self._list(kind), kind)
        elif self._take("word", "contains"):
            if not pa.types.is_string(kind):
                raise self._wrong(f"{name} is no text: it contains nothing")
            inner = _containing(name, str(self._literal(kind)))
        else:
            raise self._wrong("a test is missing: =, !=, <, <=, >, >=, in, contains, is null")
        return _inverted(inner) if negated else inner

    def _column(self) -> tuple[str, Any]:
        kind, name = self._next("a column is missing")
        if kind not in ("word", "quoted") or (kind == "word" and name.lower() in _WORDS):
            self._at -= 1
            raise self._wrong("a column is missing")
        if name not in self.schema.names:
            self._at -= 1
            raise self._wrong(f"there is no column {name!r}", ", ".join(self.schema.names))
        found = self.schema.field(name).type
        if not (_is_number(found) or pa.types.is_string(found) or pa.types.is_boolean(found)):
            raise self._wrong(f"{name} holds {found}, which is not to be compared")
        self.columns[name] = found
        return name, found

    def _list(self, kind: Any) -> list[Value]:
        self._must("mark", "(")
        found = [self._literal(kind)]
        while self._take("mark", ","):
            found.append(self._literal(kind))
        self._must("mark", ")")
        return found

    def _literal(self, kind: Any) -> Value:
        what, text = self._next("a value is missing")
        value: Value | None = None
        if what == "number":
            value = float(text) if re.search(r"[.eE]", text) else int(text)
        elif what == "text":
            value = text[1:-1].replace(text[0] * 2, text[0])
        elif what == "word" and text.lower() in ("true", "false"):
            value = text.lower() == "true"
        if value is None or not _fits(value, kind):
            self._at -= 1
            raise self._wrong(f"{text[:40]} is no value of a column of {kind}")
        return value

    def _peek(self, kind: str) -> str:
        if self._at >= len(self._tokens) or self._tokens[self._at][0] != kind:
            return ""
        return self._tokens[self._at][1]

    def _take(self, kind: str, text: str) -> bool:
        if self._peek(kind).lower() != text:
            return False
        self._at += 1
        return True

    def _must(self, kind: str, text: str) -> None:
        if not self._take(kind, text):
            raise self._wrong(f"{text!r} is missing")

    def _next(self, lacking: str) -> tuple[str, str]:
        if self._at >= len(self._tokens):
            raise self._wrong(lacking)
        kind, text, _ = self._tokens[self._at]
        self._at += 1
        return kind, text

    def _wrong(self, what: str, known: str = "") -> InvalidInput:
        at = self._tokens[self._at][2] if self._at < len(self._tokens) else len(self.text)
        remedy = f"columns: {known}" if known else "such as: shape = 'star' and not (seed < 100)"
        return InvalidInput(f"{what}, at character {at + 1}", where="where", remedy=remedy)


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """Kind, text and place of each word and mark."""
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            begins = at + len(text[at:]) - len(text[at:].lstrip())
            raise InvalidInput(
                f"{text[begins : begins + 20]!r} is not understood, at character {begins + 1}",
                where="where",
                remedy="texts stand between ' or \", columns of other letters between `",
            )
        yield match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)
        at = match.end()


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _fits(value: Value, kind: Any) -> bool:
    if isinstance(value, bool):
        return bool(pa.types.is_boolean(kind))
    if isinstance(value, str):
        return bool(pa.types.is_string(kind))
    return _is_number(kind) and -(2**63) <= value < 2**63


def _scalar(value: Value, kind: Any) -> Any:
    # A whole column of integers may be compared with 0.5.
    return pa.scalar(value, pa.float64() if isinstance(value, float) else kind)


def _compared(name: str, test: Any, value: Value, kind: Any) -> Mask:
    return lambda rows: test(rows[name], _scalar(value, kind))


def _among(name: str, values: Sequence[Value], kind: Any) -> Mask:
    tests = [_compared(name, pc.equal, value, kind) for value in values]
    return _folded(tests, pc.or_kleene)


def _containing(name: str, text: str) -> Mask:
    return lambda rows: pc.match_substring(rows[name], text)


def _null(name: str) -> Mask:
    return lambda rows: pc.is_null(rows[name])


def _inverted(inner: Mask) -> Mask:
    return lambda rows: pc.invert(inner(rows))


def _folded(masks: Sequence[Mask], join: Any) -> Mask:
    def mask(rows: pa.Table) -> Any:
        found = masks[0](rows)
        for one in masks[1:]:
            found = join(found, one(rows))
        return found

    return mask
