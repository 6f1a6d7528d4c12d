"""The bar that shows a job at work, on standard error."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from jobs.job import JobView


@contextmanager
def job_bar(images: int) -> Iterator[Callable[[JobView], None]]:
    """A bar of `images`, moved by the job's views: images, rate, time left, state and reason.

    Where nobody looks (no terminal), a line is written when the state or the reason changes.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines()
        return
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
    with bar:
        task = bar.add_task("waiting", total=images, rate="")

        def show(view: JobView) -> None:
            rate = f"{view.images_per_second:.1f} images/s" if view.images_per_second else ""
            bar.update(task, completed=view.done + view.failed, description=_words(view), rate=rate)

        yield show


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


def _lines() -> Callable[[JobView], None]:
    said = ""

    def show(view: JobView) -> None:
        nonlocal said
        words = _words(view)
        if words != said:
            said = words
            done = view.done + view.failed
            print(f"{words}: {done} of {view.images} images", file=sys.stderr, flush=True)

    return show


def _words(view: JobView) -> str:
    return f"{view.state}, {view.reason}" if view.reason else view.state
