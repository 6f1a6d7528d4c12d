"""Ending a local stack, or parts of it, so that nothing of them is left."""

import shutil
from pathlib import Path

from fewstep.processes import members, of_stack, servers_in, stop
from fewstep.stack_state import StackState, boot_id, forget_state
from jobs.errors import FewstepError

#: What writes to the servers ends before the servers do.
_WRITERS = ("scheduler", "api", "ray")
_SERVERS = ("s3", "redis")


def end_stack(home: Path, state: StackState, grace_s: float) -> None:
    """End every process, clear what is worth nothing without them, and forget the state.

    Raises FewstepError naming what does not end.
    """
    left = end_parts(state, _WRITERS, grace_s) | end_parts(state, _SERVERS, grace_s)
    left |= _end_strays(home, state)
    if left:
        raise FewstepError(f"these processes do not end: {sorted(left)}")
    _clear_ray(home, state)
    forget_state(home)


def end_parts(state: StackState, names: tuple[str, ...], grace_s: float) -> set[int]:
    """End these parts with all their children; what could not be ended."""
    if state.boot != boot_id():
        # The machine was started anew since: those numbers are strangers'.
        return set()
    marks = [state.processes[name] for name in names if name in state.processes]
    return stop(lambda: set().union(*map(members, marks)), grace_s)


def _end_strays(home: Path, state: StackState) -> set[int]:
    """End what was started and not yet written down when its starter was killed."""
    return stop(lambda: of_stack(state.id) | servers_in(home / "redis", "redis-server"), 0.5)


def _clear_ray(home: Path, state: StackState) -> None:
    """Remove Ray's folder, and keep what its processes said beside the other logs."""
    folder = Path(state.ray_folder)
    said = folder / "session_latest" / "logs"
    if said.is_dir():
        kept = home / "logs" / "ray"
        shutil.copytree(said, kept, dirs_exist_ok=True, ignore_dangling_symlinks=True)
    shutil.rmtree(folder, ignore_errors=True)
