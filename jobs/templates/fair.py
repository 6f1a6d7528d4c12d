"""How many rows of a template have each value of each column, without making the rows."""

from fractions import Fraction

from jobs.templates.phrases import Choice, Path, path_of, show
from jobs.templates.template import Prompts, tidy

#: Values of a choice that are worked out.
MAX_VALUES = 1_000


def fair_counts(prompts: Prompts) -> dict[str, dict[str, Fraction]]:
    """Column -> value -> rows; columns of too many values are left out.

    Exact for `combinatorial`; else the count times the value's share, which `balanced` is within
    one or two of, and `sampled` about. A choice whose values show variables is left out too.
    """
    found: dict[str, dict[str, Fraction]] = {}
    below = 1
    for name, choice in reversed(prompts.named_choices):
        if choice.count <= MAX_VALUES and not choice.uses:
            found[name] = _rows_by_value(choice, prompts, below)
        below *= choice.count
    return {name: found[name] for name, _ in prompts.named_choices if name in found}


def _rows_by_value(choice: Choice, prompts: Prompts, below: int) -> dict[str, Fraction]:
    found: dict[str, Fraction] = {}
    for place in range(choice.count):
        ((option, inner),) = path_of((choice,), place)
        text = tidy(show(choice.options[option], inner, {}))
        if prompts.mode == "combinatorial":
            rows = Fraction(_turns(place, choice.count, below, prompts.count))
        else:
            rows = prompts.count * _share(choice, option, inner)
        found[text] = found.get(text, Fraction(0)) + rows
    return found


def _turns(place: int, count: int, below: int, rows: int) -> int:
    """Of so many combinations in order, those in which a choice of `count` is at `place`.

    It stays at a place for `below` combinations, those of the choices behind it.
    """
    whole, rest = divmod(rows, count * below)
    return whole * below + min(below, max(0, rest - place * below))


def _share(choice: Choice, option: int, inner: Path) -> Fraction:
    """How likely a choice is to be this, by the weights of it and of the choices inside it."""
    share = Fraction(choice.weights[option], choice.heights[-1])
    choices = choice.options[option].choices
    for one, (taken, deeper) in zip(choices, inner, strict=True):
        share *= _share(one, taken, deeper)
    return share
