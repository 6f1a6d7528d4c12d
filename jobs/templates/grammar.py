r"""Reading a template: `{a|2::b}`, `__list__`, `{{variable}}`, nested, with `\` before a mark.

    template  = { text | choice | list | variable }
    choice    = "{" option { "|" option } "}"
    option    = [ weight "::" ] template          weight: 1 to 999999, by choice with decimals
    list      = "__" name "__"                    one of the list's values, anew at each place
    variable  = "{{" name "}}"                    one of the list's values, the same at each place
    name      = letter { letter | digit | "_" letter-or-digit }

Between braces `|` parts options; elsewhere it is text. A list's value is itself an option. `\{`,
`\|`, `\}`, `\_`, `\:` and `\\` are the marks as text.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from math import gcd, lcm

from jobs.errors import InvalidInput, TooLarge
from jobs.templates.phrases import Choice, Phrase, Reference

MAX_TEMPLATE = 100_000
#: Values of all lists together, and letters of one.
MAX_VALUES = 100_000
MAX_VALUE = 8_000
MAX_DEPTH = 20
#: Variables that one text may show, those that they show themselves too: each is a column.
MAX_USES = 63
#: Steps that one expansion may take, and combinations that a template may have.
MAX_WORK = 10_000
MAX_COMBINATIONS = 10**100
#: Weights of a choice that differ are made whole; their sum may not pass this.
MAX_WEIGHT = 100_000

NAME = r"[A-Za-z](?:_?[A-Za-z0-9]){0,60}"
_MARK = re.compile(rf"\\(.)|\{{\{{\s*({NAME})\s*\}}\}}|__({NAME})__|([{{|}}])", re.S)
_WEIGHT = re.compile(r"\s*(\d{1,6}(?:\.\d{1,4})?)::")
_ESCAPED = frozenset("{|}_:\\")


class Lists:
    """Named lists of values, each read when it is first named; shared by all that name it."""

    def __init__(self, values: Mapping[str, Sequence[str]]) -> None:
        _check_lists(values)
        self._values = values
        self._known: dict[str, Choice] = {}
        self._shown: dict[str, Reference] = {}
        self._open: list[str] = []

    def variable(self, name: str, where: str) -> Reference | str:
        """What `{{name}}` stands for."""
        if name not in self._shown:
            choice = self.choice(name, where)
            uses = (*choice.uses, name)
            if len(uses) > MAX_USES:
                raise TooLarge(
                    f"the variable {name!r} shows more than {MAX_USES} others",
                    where=f"lists.{name}",
                    remedy="each is a column; put several into one list",
                )
            self._shown[name] = Reference(name, choice.longest, choice.may_be_blank, uses)
        return self._shown[name]

    def choice(self, name: str, where: str) -> Choice:
        """What `__name__` stands for; raises InvalidInput for a name unknown, or in a circle."""
        if name in self._known:
            return self._known[name]
        if name in self._open:
            way = " -> ".join([*self._open[self._open.index(name) :], name])
            raise InvalidInput(f"the list refers to itself: {way}"[:300], where=f"lists.{name}")
        if name not in self._values:
            raise InvalidInput(
                f"there is no list named {name!r}",
                where=where,
                remedy=f"known: {', '.join(sorted(self._values))[:200] or 'none'}; "
                r"write \{ or \_ for the mark itself",
            )
        if len(self._open) >= MAX_DEPTH:
            raise _too_deep(where)
        self._open.append(name)
        here = f"lists.{name}"
        options = [
            read_option(value, self, f"{here}, value {number}")
            for number, value in enumerate(self._values[name], start=1)
        ]
        self._open.pop()
        self._known[name] = _choice(options, self._values[name], here, name)
        return self._known[name]


class Scope(Lists):
    """Lists as one row sees them: its own columns are variables with one value, taken as it is."""

    def __init__(self, lists: Lists, columns: Mapping[str, str]) -> None:
        self._lists, self._columns = lists, columns

    def variable(self, name: str, where: str) -> Reference | str:
        """The row's column of that name, or the list's variable."""
        if name in self._columns:
            return self._columns[name]
        return self._lists.variable(name, where)

    def choice(self, name: str, where: str) -> Choice:
        """What `__name__` stands for."""
        return self._lists.choice(name, where)


def read_phrase(text: str, lists: Lists, where: str) -> Phrase:
    """The meaning of a template's text; raises InvalidInput saying at which letter it is wrong."""
    if len(text) > MAX_TEMPLATE:
        raise TooLarge(f"the template has more than {MAX_TEMPLATE} characters", where=where)
    return _Reader(text, lists, where).whole()


def read_option(text: str, lists: Lists, where: str) -> tuple[Fraction, Phrase]:
    """Weight and meaning of one value of a list."""
    if len(text) > MAX_VALUE:
        raise TooLarge(f"the value has more than {MAX_VALUE} characters", where=where)
    reader = _Reader(text, lists, where)
    return reader.weight(), reader.whole()


class _Reader:
    """Reads one text from its start to its end."""

    def __init__(self, text: str, lists: Lists, where: str) -> None:
        self._text, self._lists, self._where = text, lists, where
        self._at = 0

    def whole(self) -> Phrase:
        """Everything up to the end."""
        phrase = self._phrase(0)
        if len(phrase.uses) > MAX_USES:
            raise TooLarge(
                f"it shows more than {MAX_USES} variables",
                where=self._where,
                remedy="each is a column; put several into one list",
            )
        if phrase.work > MAX_WORK or phrase.count > MAX_COMBINATIONS:
            raise TooLarge(
                f"it takes more than {MAX_WORK} steps to expand, or has more than 10^100 "
                "combinations",
                where=self._where,
                remedy="nest fewer choices and lists",
            )
        return phrase

    def weight(self) -> Fraction:
        """The weight that stands here, or 1."""
        found = _WEIGHT.match(self._text, self._at)
        if found is None:
            return Fraction(1)
        value = Fraction(found[1])
        if not value:
            raise self._wrong("a weight of 0", "leave the option out")
        self._at = found.end()
        return value

    def _phrase(self, depth: int) -> Phrase:
        """Up to the end, or inside a choice up to the mark that ends the option."""
        parts: list[str | Choice | Reference] = []
        while mark := _MARK.search(self._text, self._at):
            if mark[4] and mark[4] in "|}" and depth:
                parts.append(self._text[self._at : mark.start()])
                self._at = mark.start()
                return _joined(parts)
            parts.append(self._text[self._at : mark.start()])
            self._at = mark.end()
            parts.append(self._meaning(mark, depth))
        parts.append(self._text[self._at :])
        self._at = len(self._text)
        return _joined(parts)

    def _meaning(self, mark: re.Match[str], depth: int) -> str | Choice | Reference:
        escaped, variable, named, brace = mark.groups()
        if escaped is not None:
            return escaped if escaped in _ESCAPED else f"\\{escaped}"
        if variable is not None:
            return self._lists.variable(variable, self._where)
        if named is not None:
            return self._lists.choice(named, self._where)
        if brace == "{":
            return self._choice(depth + 1)
        if brace == "}":
            self._at = mark.start()
            raise self._wrong("a } that closes nothing", r"write \} for the brace itself")
        return "|"

    def _choice(self, depth: int) -> Choice:
        begin = self._at - 1
        if depth > MAX_DEPTH:
            raise _too_deep(self._where)
        options, sources = [], []
        while True:
            weight, start = self.weight(), self._at
            options.append((weight, self._phrase(depth)))
            sources.append(self._text[start : self._at])
            if self._at >= len(self._text):
                self._at = begin
                raise self._wrong("a { that is never closed", r"write \{ for the brace itself")
            self._at += 1
            if self._text[self._at - 1] == "}":
                return _choice(options, sources, self._where)

    def _wrong(self, what: str, remedy: str) -> InvalidInput:
        return InvalidInput(what, where=f"{self._where}, character {self._at + 1}", remedy=remedy)


def _choice(
    options: Sequence[tuple[Fraction, Phrase]], sources: Sequence[str], where: str, name: str = ""
) -> Choice:
    twin = next((one for one in _twins(sources)), None)
    if twin is not None:
        raise InvalidInput(
            f"the option {twin[:60]!r} is there twice",
            where=where,
            remedy=f"give it a weight instead: 2::{twin[:60]}",
        )
    common = lcm(*(weight.denominator for weight, _ in options))
    weights = [int(weight * common) for weight, _ in options]
    shared = gcd(*weights)
    weights = [weight // shared for weight in weights]
    if sum(weights) > MAX_WEIGHT and set(weights) != {1}:
        raise InvalidInput(
            f"the weights, made whole, add up to more than {MAX_WEIGHT}",
            where=where,
            remedy="use coarser ones",
        )
    return Choice(tuple(phrase for _, phrase in options), tuple(weights), name)


def _twins(sources: Iterable[str]) -> Iterable[str]:
    seen: set[str] = set()
    for source in sources:
        plain = _WEIGHT.sub("", source, count=1) if _WEIGHT.match(source) else source
        if plain in seen:
            yield plain
        seen.add(plain)


def _joined(parts: Iterable[str | Choice | Reference]) -> Phrase:
    """A phrase of the parts, neighbouring texts as one."""
    found: list[str | Choice | Reference] = []
    for part in parts:
        last = found[-1] if found else None
        if isinstance(part, str) and isinstance(last, str):
            found[-1] = last + part
        elif part != "":
            found.append(part)
    return Phrase(tuple(found))


def _check_lists(values: Mapping[str, Sequence[str]]) -> None:
    for name, some in values.items():
        if not re.fullmatch(NAME, name):
            raise InvalidInput(
                f"{name[:40]!r} is no name of a list",
                where="lists",
                remedy="letters, digits and single _ inside, beginning with a letter",
            )
        if not some:
            raise InvalidInput("the list is empty", where=f"lists.{name}")
    if sum(map(len, values.values())) > MAX_VALUES:
        raise TooLarge(f"the lists have more than {MAX_VALUES} values", where="lists")


def _too_deep(where: str) -> InvalidInput:
    return InvalidInput(f"choices or lists are nested more than {MAX_DEPTH} deep", where=where)
