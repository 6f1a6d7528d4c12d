"""Starting what is missing of a local stack, and taking that back where it fails."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from fewstep.components import TITLES, Place, await_ready, check_given, launch
from fewstep.configuration import stack_settings
from fewstep.ending import end_parts, end_stack
from fewstep.processes import STACK_VARIABLE, disown
from fewstep.stack_plan import stack_variables
from fewstep.stack_state import StackState, save_state
from jobs.errors import BadConfiguration
from jobs.store import Store

#: Told what is being done, in one short line.
Say = Callable[[str], None]

#: Ray ends by itself where a busy machine does not bring its node up in 30 seconds.
RAY_TRIES = 3


class Healing:
    """One attempt to bring up what is missing; `state` is what has come of it."""

    def __init__(self, home: Path, state: StackState, say: Say) -> None:
        self.state = state
        self._before = state
        self._home = home
        self._say = say

    def run(self) -> None:
        """Start what is missing: all at once, but the scheduler, which needs the others.

        Raises BadConfiguration or Unreachable; `undo` takes back what was started by then.
        """
        (self._home / "logs").mkdir(parents=True, exist_ok=True)
        missing = _missing(self.state)
        if not missing:
            return
        self._end(missing)
        settings = stack_settings(self.state, self._home)
        place = Place(self._home, self.state, settings, stack_variables(self.state, settings))
        check_given(self.state, settings)
        begin = time.monotonic()
        self._say(f"starting {', '.join(TITLES[name] for name in missing)}")
        self._launch([name for name in missing if name != "scheduler"], place)
        if "s3" in missing:
            Store.connect(settings, create_bucket=True).close()
        for name in ("api", "ray", "scheduler"):
            if name not in missing:
                continue
            if name == "scheduler":
                self._launch([name], place)
            self._await(name, place)
            self._say(f"{TITLES[name]} is ready ({time.monotonic() - begin:.1f} s)")

    def undo(self) -> None:
        """End what this attempt started; forget a stack that never was."""
        before = self._before.processes
        started = {n for n, mark in self.state.processes.items() if before.get(n) != mark}
        if started >= set(self.state.processes):
            end_stack(self._home, self.state, grace_s=1.0)
        else:
            self._end(tuple(started))

    def _await(self, name: str, place: Place) -> None:
        for left in reversed(range(RAY_TRIES if name == "ray" else 1)):
            try:
                await_ready(name, place, self.state.processes[name])
                return
            except BadConfiguration:
                if not left:
                    raise
                self._say("Ray gave up, as it does on a busy machine after 30 s: trying again")
                self._end((name,))
                self._launch([name], place)

    def _launch(self, names: list[str], place: Place) -> None:
        """Start parts side by side; write down all that came up, then raise the first error."""
        with _marked(self.state.id), ThreadPoolExecutor() as pool:
            starting = {name: pool.submit(launch, name, place) for name in names}
        for name, future in starting.items():
            if future.exception() is None:
                self._record(name, future.result())
        for future in starting.values():
            future.result()

    def _record(self, name: str, process: subprocess.Popen[bytes]) -> None:
        self.state = self.state.with_process(name, disown(process))
        save_state(self._home, self.state)

    def _end(self, names: tuple[str, ...]) -> None:
        end_parts(self.state, names, grace_s=1.0)
        for name in names:
            self.state = self.state.with_process(name, None)
        save_state(self._home, self.state)


def _missing(state: StackState) -> tuple[str, ...]:
    missing = state.dead
    if "ray" in missing and "scheduler" in state.embedded and "scheduler" not in missing:
        # It is connected to the Ray that is gone.
        return (*missing, "scheduler")
    return missing


@contextmanager
def _marked(stack_id: str) -> Iterator[None]:
    """Children started meanwhile carry the stack's id, so that none can be lost."""
    os.environ[STACK_VARIABLE] = stack_id
    try:
        yield
    finally:
        del os.environ[STACK_VARIABLE]
