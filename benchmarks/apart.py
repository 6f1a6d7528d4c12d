"""A side of a comparison in a process of its own: what it sets for its process is no other's."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.measure import Side

#: A side may take so long for one round, in seconds, before the run ends with an error.
PATIENCE_S = 600.0

#: Makes a side; a function of a module, since another process calls it.
Maker = Callable[..., Side]
#: Name of a side -> its maker, and what it is given.
Makers = dict[str, tuple[Maker, tuple[Any, ...]]]


@contextmanager
def apart(makers: Makers) -> Iterator[dict[str, Side]]:
    """The sides of `makers` each in a process that ends with this.

    Between their rounds they wait and cost nothing but memory.
    """
    with ExitStack() as ends:
        yield {
            name: ends.enter_context(_elsewhere(name, make, given))
            for name, (make, given) in makers.items()
        }


@contextmanager
def _elsewhere(name: str, make: Maker, given: tuple[Any, ...]) -> Iterator[Side]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_answer, args=(theirs, make, given), name=name, daemon=True)
    process.start()
    theirs.close()

    def side(number: int) -> float:
        ours.send(number)
        if not ours.poll(PATIENCE_S):
            raise TimeoutError(f"{name} has not ended round {number} in {PATIENCE_S:.0f} s")
        try:
            return float(ours.recv())
        except EOFError as error:
            raise RuntimeError(f"{name} ended in round {number}: what it said is above") from error

    try:
        yield side
    finally:
        ours.close()
        process.join()


def _answer(asked: Connection, make: Maker, given: tuple[Any, ...]) -> None:
    side = make(*given)
    while True:
        try:
            number = asked.recv()
        except EOFError:
            return
        asked.send(side(number))
