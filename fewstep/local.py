"""The stack on one machine: Redis, an object store, Ray, the API and the scheduler."""

from pathlib import Path
from types import TracebackType
from typing import Self

from fewstep.components import TITLES, last_words, log_of
from fewstep.configuration import read_settings, stack_settings
from fewstep.devices import check_memory
from fewstep.ending import end_stack
from fewstep.healing import Healing, Say
from fewstep.stack_plan import plan_stack, stack_variables
from fewstep.stack_state import COMPONENTS, StackState, load_state, locked
from jobs.errors import BadConfiguration, NotFound
from jobs.settings import Settings


class Stack:
    """A local stack that is up; leaving it as a context manager stops it."""

    def __init__(self, home: Path, state: StackState) -> None:
        self.home = home
        self.state = state

    @classmethod
    def start(
        cls,
        home: Path,
        renderers: int,
        say: Say,
        *,
        private: bool = False,
        parts: tuple[str, ...] = COMPONENTS,
    ) -> "Stack":
        """Start the stack kept in `home`, or what is missing of it; return when it is ready.

        A stack that runs in part keeps its addresses, secrets, parts and number of renderers. On
        any error or interrupt, what this call started is stopped again. Raises BadConfiguration,
        Unreachable or NoCapacity.
        """
        with locked(home):
            settings = read_settings().model_copy(update={"home": home})
            state = _living(home)
            if state is None:
                check_memory(renderers)
                state = plan_stack(home, settings, renderers, private=private, parts=parts)
            healing = Healing(home, state, say)
            try:
                healing.run()
            except BaseException:
                healing.undo()
                raise
        return cls(home, healing.state)

    @classmethod
    def attach(cls, home: Path) -> "Stack":
        """The stack kept in `home`, dead or alive; raises NotFound where none was started."""
        state = load_state(home)
        if state is None:
            raise NotFound("no local stack is up", where=str(home), remedy="run `fewstep up`")
        return cls(home, state)

    @property
    def settings(self) -> Settings:
        """The settings with which its processes run."""
        return stack_settings(self.state, self.home)

    @property
    def env(self) -> dict[str, str]:
        """The whole environment for a process that is to work with it; holds secrets."""
        return stack_variables(self.state, self.settings)

    def check(self) -> None:
        """Raise BadConfiguration with its last words where a process of the stack has died."""
        for name in self.state.dead:
            log = log_of(self.home, name)
            raise BadConfiguration(
                f"{TITLES[name]} has died",
                where=str(log),
                remedy=f"its last words: {last_words(log)}",
            )

    def stop(self, grace_s: float = 3.0) -> None:
        """End every process of the stack; data stays. Harmless when nothing runs.

        SIGTERM first, SIGKILL after `grace_s` seconds. Raises FewstepError naming what is left.
        """
        with locked(self.home):
            end_stack(self.home, load_state(self.home) or self.state, grace_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _living(home: Path) -> StackState | None:
    """The state of the stack kept in `home`, if any of it runs; else its remains are ended."""
    state = load_state(home)
    if state is None or len(state.dead) < len(state.embedded):
        return state
    end_stack(home, state, grace_s=1.0)
    return None
