"""A template and its rows: prompts, and what each choice was, as pure functions of the row."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from jobs.errors import InvalidInput, NothingToRender, TooLarge
from jobs.rows import MAX_COLUMNS, MAX_PROMPT, Row, Scalar, writable
from jobs.templates.balance import balanced_path
from jobs.templates.drawing import Draws, drawn_path
from jobs.templates.expansion import MAX_COUNT, Expansion, Mode, TemplateRequest
from jobs.templates.grammar import MAX_COMBINATIONS, Lists, read_phrase
from jobs.templates.phrases import Choice, Path, Phrase, combination_of, path_of, show

#: The column that numbers combinations.
COMBINATION = "combination"
#: Letters of a template with all its lists.
MAX_LETTERS = 4_000_000
_BLANKS = re.compile(r" {2,}")


class Prompts:
    """A prompt and a negative prompt that were read as templates, and how they become rows.

    `where` is for messages; `taken`: names that its columns may not have; `salt`: with another one
    other rows are drawn. Raises InvalidInput or TooLarge saying what is wrong.
    """

    def __init__(
        self,
        prompt: str,
        negative: str,
        expansion: Expansion,
        lists: Lists,
        where: str,
        taken: Mapping[str, object] | None = None,
        salt: str = "",
    ) -> None:
        self._expansion, self._salt = expansion, salt
        self._prompt = read_phrase(prompt, lists, where)
        self._negative = read_phrase(negative, lists, f"{where}, negative_prompt")
        uses = dict.fromkeys((*self._prompt.uses, *self._negative.uses))
        self._variables = {name: lists.choice(name, where) for name in uses}
        self._choices: tuple[Choice, ...] = (
            *self._variables.values(),
            *self._prompt.choices,
            *self._negative.choices,
        )
        self._names = self._named(taken or {}, where)
        #: How many combinations there are.
        self.total = 1
        for choice in self._choices:
            self.total *= choice.count
        if self.total > MAX_COMBINATIONS:
            raise TooLarge("more than 10^100 combinations", where=where)
        _check_texts(self._prompt, self._negative, where)
        #: How many rows it becomes.
        self.count = _counted(expansion, self.total, where)

    @property
    def columns(self) -> dict[str, Literal["int", "string"]]:
        """The columns of its rows: one for each variable, choice and list at the outside."""
        kind: Literal["int", "string"] = "int" if self.total <= 2**63 else "string"
        return {**dict.fromkeys(self._names, "string"), COMBINATION: kind}

    @property
    def named_choices(self) -> list[tuple[str, Choice]]:
        """Each choice at the outside, with the name of its column."""
        return list(zip(self._names, self._choices, strict=True))

    @property
    def mode(self) -> Mode:
        """How it becomes rows."""
        return self._expansion.mode

    def path(self, row: int) -> Path:
        """What every choice is in a row, 0 up to `count`."""
        if not 0 <= row < self.count:
            raise IndexError(f"row {row} of {self.count}")
        if self._expansion.mode == "combinatorial":
            return path_of(self._choices, row)
        if self._expansion.mode == "balanced":
            return balanced_path(self._choices, row)
        return drawn_path(self._choices, Draws(f"{self._salt}{self._expansion.seed}:{row}"))

    def combination(self, path: Path) -> int:
        """The number of a path among all combinations; `path_at` is its inverse."""
        return combination_of(self._choices, path)

    def path_at(self, combination: int) -> Path:
        """The path of a combination, 0 up to `total`."""
        return path_of(self._choices, combination)

    def row(self, number: int) -> Row:
        """Row `number`: its prompts, and its columns."""
        path = self.path(number)
        bound: dict[str, str] = {}
        shown: list[Scalar] = []
        names = [*self._variables, *[""] * (len(self._choices) - len(self._variables))]
        for name, choice, (option, inner) in zip(names, self._choices, path, strict=True):
            text = tidy(show(choice.options[option], inner, bound))
            shown.append(text)
            if name:
                bound[name] = text
        begin = len(self._variables)
        middle = begin + len(self._prompt.choices)
        combination = self.combination(path)
        return Row(
            prompt=tidy(show(self._prompt, path[begin:middle], bound)),
            negative_prompt=tidy(show(self._negative, path[middle:], bound)),
            extra={
                **dict(zip(self._names, shown, strict=True)),
                COMBINATION: combination if self.total <= 2**63 else str(combination),
            },
        )

    def rows(self, first: int, stop: int) -> Iterator[Row]:
        """Rows `first` up to `stop`."""
        return map(self.row, range(first, stop))

    def _named(self, taken: Mapping[str, object], where: str) -> tuple[str, ...]:
        """A column's name for each outer choice: its variable's or list's, or `choice_1`."""
        if len(self._choices) >= MAX_COLUMNS:
            raise TooLarge(
                f"more than {MAX_COLUMNS - 1} choices, lists and variables",
                where=where,
                remedy="each is a column; put several into one list",
            )
        used = {*taken, COMBINATION}
        names = [_free(name, used) for name in self._variables]
        plain = 0
        for choice in self._choices[len(self._variables) :]:
            plain += not choice.name
            names.append(_free(choice.name or f"choice_{plain}", used))
        return tuple(names)


@dataclass(frozen=True, slots=True)
class Template:
    """A template that is a whole prompt source, as it was asked for and as it was read.

    Raises InvalidInput or TooLarge saying where it is wrong. Reading it takes time and memory in
    proportion to its text, never to the number of combinations.
    """

    request: TemplateRequest
    prompts: Prompts

    @classmethod
    def of(cls, request: TemplateRequest) -> "Template":
        """Read what was asked for."""
        check_letters(request, request.template, request.negative_prompt)
        lists = Lists(request.lists)
        prompts = Prompts(request.template, request.negative_prompt, request, lists, "template")
        return cls(request, prompts)


def check_letters(expansion: Expansion, *texts: str) -> None:
    """Refuse texts and lists that are too long together, or that no file can hold."""
    values = [value for some in expansion.lists.values() for value in some]
    letters = sum(map(len, texts)) + sum(map(len, values))
    if letters > MAX_LETTERS:
        raise TooLarge(
            f"template and lists have {letters} characters, more than {MAX_LETTERS}",
            where="template",
        )
    for text in texts:
        writable(text, "template", "the text")
    for name, some in expansion.lists.items():
        for number, value in enumerate(some, start=1):
            writable(value, f"lists.{name}, value {number}", "the text")


def _counted(expansion: Expansion, total: int, where: str) -> int:
    asked = expansion.count
    if expansion.mode != "combinatorial":
        if asked is None:
            raise InvalidInput(
                f"how many rows is not said, which the mode {expansion.mode} needs",
                where="count",
                remedy="give a count",
            )
        return asked
    if asked is not None and asked > total:
        raise InvalidInput(
            f"{asked} rows of {total} combinations",
            where="count",
            remedy="leave count out, or use the mode sampled or balanced",
        )
    if asked is None and total > MAX_COUNT:
        raise TooLarge(
            f"{total} combinations are more than {MAX_COUNT} rows",
            where=where,
            remedy="say how many with count, or use the mode sampled or balanced",
        )
    return asked or total


def _free(name: str, used: set[str]) -> str:
    """The name, or the first of `name_2`, `name_3` ... that is not used."""
    free, number = name, 1
    while free in used:
        number += 1
        free = f"{name}_{number}"
    used.add(free)
    return free


def tidy(text: str) -> str:
    """Without blanks at the ends and beside each other, which an empty option leaves behind."""
    return _BLANKS.sub(" ", text).strip()


def _check_texts(prompt: Phrase, negative: Phrase, where: str) -> None:
    for phrase in (prompt, negative):
        if phrase.longest > MAX_PROMPT:
            raise TooLarge(
                f"a prompt could have {phrase.longest} characters, more than {MAX_PROMPT}",
                where=where,
            )
    if prompt.may_be_blank:
        raise NothingToRender(
            "a prompt could be blank", where=where, remedy="let some text stand in every option"
        )
