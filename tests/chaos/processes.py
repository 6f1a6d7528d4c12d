"""Forked processes as the test sees them: started, signalled, waited for."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.servers import wait_until


@dataclass(eq=False)
class Child:
    """A forked process; `code` is its exit status, negative for a signal, None while it lives."""

    name: str
    order: dict[str, Any]
    pid: int = 0
    code: int | None = None
    gone_at: float = 0.0
    #: Start it again after a bad end, as Ray does with an actor.
    restart: bool = False
    #: Its processes that ended badly: they could not take their leave.
    fallen: list[int] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; one that has gone is left in peace."""
        if self.code is None:
            # It may be gone without our having heard of it.
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def is_something(self) -> bool:
        """Whether it runs or has gone for good, and is not between two lives."""
        return self.code is None or self.gone.is_set()

    def pid_lives(self) -> bool:
        """Whether the process that it is now is there."""
        return Path(f"/proc/{self.pid}").exists()

    def resume(self) -> None:
        """Let it go on after SIGSTOP."""
        self.signal(signal.SIGCONT)

    def stopped(self) -> bool:
        """Whether it stands still (SIGSTOP)."""
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return False
        return state == "T"

    def wait(self, seconds: float = 180) -> int:
        """Its exit status."""
        assert self.gone.wait(seconds), f"{self.name} ({self.pid}) did not end"
        assert self.code is not None
        return self.code


class Zygote:
    """The warm process, and everyone forked from it. One serves many sites in turn."""

    def __init__(self, log: Path) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("FEWSTEP_")}
        environment["OMP_NUM_THREADS"] = "1"
        self._lock = threading.Lock()
        self._answers: dict[str, int] = {}
        self._children: dict[int, Child] = {}
        self._respawn: Callable[[Child], None] = lambda child: None
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.zygote"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                text=True,
            )
        self._ready = threading.Event()
        self._changed = threading.Condition(self._lock)
        self._listener = threading.Thread(target=self._listen, name="zygote", daemon=True)
        self._listener.start()
        assert self._ready.wait(180), f"the zygote did not start, see {log}"

    def fork(self, name: str, order: dict[str, Any], *, restart: bool = False) -> Child:
        """A new process that carries out `order`."""
        child = Child(name, order, restart=restart)
        self._start(child)
        return child

    def _start(self, child: Child) -> None:
        child.order["id"] = f"{child.name}-{time.monotonic_ns()}"
        stdin = self._process.stdin
        assert stdin is not None
        with self._lock:
            stdin.write(json.dumps(child.order) + "\n")
            stdin.flush()
            assert self._changed.wait_for(lambda: child.order["id"] in self._answers, 60)
            child.pid = self._answers.pop(child.order["id"])
            child.code = None
            child.gone.clear()
            self._children[child.pid] = child

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            notice = json.loads(line)
            if "ready" in notice:
                self._ready.set()
            elif "pid" in notice:
                with self._lock:
                    self._answers[notice["order"]] = notice["pid"]
                    self._changed.notify_all()
            else:
                threading.Thread(target=self._bury, args=(notice["gone"], notice["code"])).start()

    def _bury(self, pid: int, code: int) -> None:
        wait_until(lambda: pid in self._children, "the fork's own notice")
        with self._lock:
            child = self._children.pop(pid)
        child.code, child.gone_at = code, time.monotonic()
        if code != 0:
            child.fallen.append(pid)
        if child.restart and code != 0:
            self._start(child)
        else:
            child.gone.set()

    def living(self) -> list[Child]:
        """Everyone who has not gone."""
        with self._lock:
            return list(self._children.values())

    def close(self) -> None:
        """End it, and with it whoever is left."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._listener.join(60)
        self._process.stdout.close()
