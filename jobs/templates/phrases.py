"""What a template's text means: phrases of text, choices and references, and how large they are."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Union

#: For each choice of a phrase: the option that was taken, and the same of that option's phrase.
Path = tuple[tuple[int, "Path"], ...]


@dataclass(frozen=True, slots=True)
class Reference:
    """`{{name}}`: shows what its variable was bound to, the same wherever it stands."""

    name: str
    longest: int
    may_be_blank: bool
    #: The variable, after those that its own values show.
    uses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Phrase:
    """Text with choices and references in it. `count`: its combinations, of its choices alone."""

    parts: tuple[Union[str, "Choice", Reference], ...]
    choices: tuple["Choice", ...] = field(init=False)
    count: int = field(init=False)
    #: Bounds of what one expansion may have: letters, and steps it takes.
    longest: int = field(init=False)
    work: int = field(init=False)
    may_be_blank: bool = field(init=False)
    #: Variables that it shows, each after those that it shows itself.
    uses: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        choices = tuple(part for part in self.parts if isinstance(part, Choice))
        count = 1
        for choice in choices:
            count *= choice.count
        facts = {
            "choices": choices,
            "count": count,
            "longest": sum(
                len(part) if isinstance(part, str) else part.longest for part in self.parts
            ),
            "work": len(self.parts) + sum(choice.work for choice in choices),
            "may_be_blank": all(
                not part.strip() if isinstance(part, str) else part.may_be_blank
                for part in self.parts
            ),
            "uses": _merged(part.uses for part in self.parts if not isinstance(part, str)),
        }
        for name, value in facts.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True, slots=True)
class Choice:
    """Alternatives with whole weights; `name` is that of its list, or empty."""

    options: tuple[Phrase, ...]
    weights: tuple[int, ...]
    name: str = ""
    #: Where each option's combinations begin, and how many there are.
    starts: tuple[int, ...] = field(init=False)
    count: int = field(init=False)
    #: Sums of the weights up to each option, itself included.
    heights: tuple[int, ...] = field(init=False)
    longest: int = field(init=False)
    work: int = field(init=False)
    may_be_blank: bool = field(init=False)
    #: Variables that it shows, each after those that it shows itself.
    uses: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        counts = [0, *accumulate(option.count for option in self.options)]
        facts = {
            "starts": tuple(counts[:-1]),
            "count": counts[-1],
            "heights": tuple(accumulate(self.weights)),
            "longest": max(option.longest for option in self.options),
            "work": 1 + max(option.work for option in self.options),
            "may_be_blank": any(option.may_be_blank for option in self.options),
            "uses": _merged(option.uses for option in self.options),
        }
        for name, value in facts.items():
            object.__setattr__(self, name, value)


def _merged(uses: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for some in uses for name in some))


def path_of(choices: Sequence[Choice], combination: int) -> Path:
    """The path of a combination, 0 up to the product of the counts; the last choice turns first."""
    found: list[tuple[int, Path]] = []
    for choice in reversed(choices):
        combination, place = divmod(combination, choice.count)
        taken = bisect_right(choice.starts, place) - 1
        inner = path_of(choice.options[taken].choices, place - choice.starts[taken])
        found.append((taken, inner))
    return tuple(reversed(found))


def combination_of(choices: Sequence[Choice], path: Path) -> int:
    """The number of a path: the inverse of `path_of`."""
    combination = 0
    for choice, (taken, inner) in zip(choices, path, strict=True):
        place = choice.starts[taken] + combination_of(choice.options[taken].choices, inner)
        combination = combination * choice.count + place
    return combination


def show(phrase: Phrase, path: Path, bound: dict[str, str]) -> str:
    """The text of a phrase under a path; `bound` has the text of every variable."""
    taken = iter(path)
    shown: list[str] = []
    for part in phrase.parts:
        if isinstance(part, str):
            shown.append(part)
        elif isinstance(part, Reference):
            shown.append(bound[part.name])
        else:
            option, inner = next(taken)
            shown.append(show(part.options[option], inner, bound))
    return "".join(shown)
