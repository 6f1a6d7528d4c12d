"""What is known of a local stack: one private file, written whole or not at all."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field, ValidationError

from fewstep.processes import ProcessMark, is_alive
from jobs.errors import BadConfiguration
from jobs.recipe import Frozen

#: In the order in which they start; they stop the other way round.
COMPONENTS = ("redis", "s3", "ray", "api", "scheduler")
STATE_FILE = "stack.json"


class StackState(Frozen):
    """A local stack: addresses, secrets and processes. Its file has mode 0600."""

    id: str
    #: Of the machine's boot: after another one, all numbers below are strangers'.
    boot: str
    renderers: int
    redis_url: str = Field(repr=False)
    s3_endpoint: str | None
    s3_region: str
    s3_bucket: str
    s3_access_key: str | None = Field(repr=False)
    s3_secret_key: str | None = Field(repr=False)
    api_url: str
    ray_address: str
    #: Ray's folder; short, because its sockets lie in it.
    ray_folder: str
    #: Those that run here, and those that `FEWSTEP_*` variables named.
    embedded: tuple[str, ...] = Field(strict=False)
    given: tuple[str, ...] = Field(strict=False)
    processes: dict[str, ProcessMark] = Field(default_factory=dict)

    def alive(self, component: str) -> bool:
        """Whether an embedded component's process runs."""
        mark = self.processes.get(component)
        return mark is not None and self.boot == boot_id() and is_alive(mark)

    @property
    def dead(self) -> tuple[str, ...]:
        """Embedded components that do not run."""
        return tuple(name for name in self.embedded if not self.alive(name))

    def with_process(self, component: str, mark: ProcessMark | None) -> "StackState":
        """The state with that component's process, or without one."""
        processes = {name: old for name, old in self.processes.items() if name != component}
        if mark is not None:
            processes[component] = mark
        return self.model_copy(update={"processes": processes})


def load_state(home: Path) -> StackState | None:
    """The state kept in `home`; None where there is none. Raises BadConfiguration if broken."""
    path = home / STATE_FILE
    try:
        return StackState.model_validate_json(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise BadConfiguration(
            f"the state of the local stack cannot be read: {type(error).__name__}",
            where=str(path),
            remedy="stop what runs by hand, then remove the file",
        ) from error


def save_state(home: Path, state: StackState) -> None:
    """Write the state; a crash leaves the old one or the new one."""
    new = home / f"{STATE_FILE}.new"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(state.model_dump_json(indent=1))
    new.replace(home / STATE_FILE)


def forget_state(home: Path) -> None:
    """Remove the state: nothing runs any more."""
    (home / STATE_FILE).unlink(missing_ok=True)


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Only one process at a time starts or stops the stack of `home`."""
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (home / "stack.lock").open("w", encoding="utf-8")
    except OSError as error:
        raise BadConfiguration(
            f"the folder cannot be written: {error.strerror}",
            where=str(home),
            remedy="set FEWSTEP_HOME to one that can",
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def boot_id() -> str:
    """Which boot of the machine this is; the same text all along where none is told."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()
    except OSError:
        return "unknown"
