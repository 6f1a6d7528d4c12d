"""The bar that shows a job at work, on standard error."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from jobs.client_follow import AWAY
from jobs.job import JobView

#: Asked for the stages of a job's latest shards; None: this bar shows none.
Ask = Callable[[], Mapping[str, Any]] | None
#: Between two questions for them, in seconds.
ASK_S = 2.0
#: Stages below this share of an image's time are not told.
LITTLE = 0.01


@contextmanager
def job_bar(
    images: int, ask: Ask = None, console: Console | None = None
) -> Iterator[Callable[[JobView], None]]:
    """A bar of `images`, moved by the job's views: images, rate, time left, state and reason, and
    under it which stage takes how much of an image's time.

    Where nobody looks (no terminal), a line is written when the state, the reason or the tenth
    that is done changes.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield _lines(ask)
        return
    with _Bar(images, ask, console) as bar:
        yield bar.show


class _Bar(Progress):
    """One task, and a line under it."""

    def __init__(self, images: int, ask: Ask, console: Console) -> None:
        # Set first: the bar draws itself while it is made.
        self._split = _Split(ask)
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
        )
        self._task = self.add_task("waiting", total=images, rate="", left="")

    def show(self, view: JobView) -> None:
        """Move to this view."""
        self._split.look(view)
        self.update(
            self._task,
            completed=view.done + view.failed,
            description=_words(view),
            rate=_rate(view),
            left=_left(view),
        )

    def get_renderables(self) -> Iterator[RenderableType]:
        """The bar, and the stages where they are known."""
        yield from super().get_renderables()
        if self._split.text:
            yield Text(self._split.text, style="dim")


class _Split:
    """Which stage takes how much of an image's time, asked for when images were made since."""

    def __init__(self, ask: Ask) -> None:
        self.text = ""
        self._ask, self._done, self._next = ask, 0, 0.0

    def look(self, view: JobView) -> None:
        """Ask again where there is news."""
        now = time.monotonic()
        if self._ask is None or view.done == self._done or now < self._next:
            return
        self._done, self._next = view.done, now + ASK_S
        try:
            self.text = split_words(self._ask())
        except AWAY:
            # Whoever follows the job bears an API or a store that is away; the last words stay.
            return


@contextmanager
def byte_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for copying, told bytes done and bytes in all; silent where nobody looks."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _done, _total: None
        return
    with Progress(console=console) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def split_words(found: Mapping[str, Any]) -> str:
    """The stages of an image by their share of its time, and what held the shards up; "" where
    nothing is known yet."""
    sums = {
        name: stage["sum_ms"] for name, stage in found["stages"].items() if stage["per"] == "image"
    }
    whole = sum(sums.values())
    if not whole:
        return ""
    shares = [
        f"{name.replace('_', ' ')} {part / whole:.0%}"
        for name, part in sums.items()
        if part >= LITTLE * whole
    ]
    held = found["bottleneck"]
    return " · ".join([*shares, f"{held['stage']}-bound"] if held else shares)


def _lines(ask: Ask) -> Callable[[JobView], None]:
    said: tuple[str, int] = ("", 0)
    split = _Split(ask)

    def show(view: JobView) -> None:
        nonlocal said
        done = view.done + view.failed
        now = (_words(view), 10 * done // max(1, view.images))
        if now != said:
            said = now
            split.look(view)
            more = [word for word in (_rate(view), _left(view), split.text) if word]
            text = ", ".join([f"{now[0]}: {done} of {view.images} images", *more])
            print(text, file=sys.stderr, flush=True)

    return show


def _words(view: JobView) -> str:
    return f"{view.state}, {view.reason}" if view.reason else view.state


def _rate(view: JobView) -> str:
    return f"{view.images_per_second:.1f} images/s" if view.images_per_second else ""


def _left(view: JobView) -> str:
    if view.eta_s is None:
        return ""
    minutes, seconds = divmod(round(view.eta_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d} left"
