"""Balanced rows: which value each choice has in row i, so that values and pairs come evenly.

Choices whose sizes share divisors, by a chain of others too, make a group. In one with the sizes
n_1 >= .. >= n_k, in row i choice d has the value

    (i + sum over j = 2..d of c(d, j) * digit_j(i // L)) mod n_d,   L = lcm(n_1 .. n_k),

where digit_j are the digits of i // L, the first the fastest, to the bases
g_j = gcd(lcm(n_1 .. n_j-1), n_j), and c(d, j) = max((d - 1) // 2^(j - 2), 1 if j = d).
It is our own construction; what it keeps is proved here and tested:

* Any n_d rows from a multiple of n_d on hold each value of choice d once (a shift changes at
  multiples of L only): every value is within one of its fair count, whatever the number of rows.
* The first n_1 * .. * n_k rows hold each combination of a group once: from the values of choices
  1 .. d-1, i is known modulo their lcm and so modulo g_d, which leaves one digit_d. Groups share no
  divisor, so by the Chinese remainder theorem the same holds for all choices together: each pair
  of values comes equally often in as many rows as there are combinations.
* Two choices alone, sizes that share no divisor at all, and up to p choices of one prime size p:
  every pair of values is within one too, whatever the number of rows. For all templates no
  arrangement can do that: ten choices of two values have no five rows of that kind.
* An option of weight w counts as w values that are spread evenly: it is within two, or one for the
  largest choice of a group.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from heapq import heappop, heappush
from math import gcd, lcm

from jobs.templates.phrases import Choice, Path


@dataclass(frozen=True, slots=True)
class Group:
    """The arrangement of choices of these sizes."""

    sizes: tuple[int, ...]
    period: int = field(init=False)
    bases: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        known, bases = 1, []
        for size in self.sizes:
            bases.append(gcd(known, size))
            known = lcm(known, size)
        object.__setattr__(self, "period", known)
        object.__setattr__(self, "bases", tuple(bases))

    def values(self, row: int) -> list[int]:
        """The value of each choice in a row, each from 0 up to its size."""
        rest, digits = row // self.period, []
        for base in self.bases:
            rest, digit = divmod(rest, base)
            digits.append(digit)
        return [
            (row + sum(_skew(place, j) * digits[j] for j in range(1, place + 1))) % size
            for place, size in enumerate(self.sizes)
        ]


def _skew(place: int, j: int) -> int:
    """c(d, j) with both counted from 0."""
    return max(place >> (j - 1), int(place == j))


def balanced_values(sizes: tuple[int, ...], row: int) -> list[int]:
    """The value of each choice in a row, each from 0 up to its size."""
    values = [0] * len(sizes)
    for places in _groups(sizes):
        group = Group(tuple(sizes[place] for place in places))
        for place, value in zip(places, group.values(row), strict=True):
            values[place] = value
    return values


@lru_cache(maxsize=64)
def _groups(sizes: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Places of sizes that share divisors, by group."""
    groups: list[list[int]] = []
    for place, size in enumerate(sizes):
        shared = [some for some in groups if any(gcd(size, sizes[one]) > 1 for one in some)]
        groups = [some for some in groups if some not in shared]
        groups.append(sorted([place, *(one for some in shared for one in some)]))
    # The largest first: measured, then the pairs of other sizes stray the least on their way.
    return tuple(tuple(sorted(some, key=lambda place: -sizes[place])) for some in groups)


def balanced_path(choices: Sequence[Choice], row: int) -> Path:
    """The path of a row: an option of weight 3 has three of the values that are balanced.

    Inside an option the same goes on with the number of times that the value came before.
    """
    sizes = tuple(choice.heights[-1] for choice in choices)
    found: list[tuple[int, Path]] = []
    for choice, size, value in zip(choices, sizes, balanced_values(sizes, row), strict=True):
        uniform = size == len(choice.options)
        taken, unit = (value, 0) if uniform else _spread(choice.weights)[value]
        # Each value comes once in a run of `size` rows, so that is how often it came before.
        visits = row // size * choice.weights[taken] + unit
        found.append((taken, balanced_path(choice.options[taken].choices, visits)))
    return tuple(found)


@lru_cache(maxsize=16)
def _spread(weights: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """The options in an even order, each with how often it came before: weight 3 and 1 is a a b a.

    Unit c of weight w belongs between c*W/w and (c + 1)*W/w, W the sum; the one that ends first is
    next. So no option is ever a whole unit off (Pfair scheduling on one processor, Baruah et al.
    1996).
    """
    total = sum(weights)
    waiting = [(0, option, 0) for option in range(len(weights))]
    ready: list[tuple[int, int, int]] = []
    found = []
    for place in range(total):
        while waiting and waiting[0][0] <= place:
            _, option, unit = heappop(waiting)
            heappush(ready, (-(-(unit + 1) * total // weights[option]), option, unit))
        _, option, unit = heappop(ready)
        found.append((option, unit))
        if unit + 1 < weights[option]:
            heappush(waiting, ((unit + 1) * total // weights[option], option, unit + 1))
    return tuple(found)
