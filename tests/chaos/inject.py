"""Faults inside a renderer's process: what it meets at a named point of its own work.

Nothing of this is in the product: a forked process patches itself before it begins to live.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.commit import adopt_unit, commit_unit

#: Passed by the environment of the renderer that is to meet them.
VARIABLE = "FEWSTEP_CHAOS"


@dataclass(frozen=True)
class Trap:
    """At `point`, `times` processes in all do `act`; `folder` keeps count across processes.

    Points: batch (before each), step (in the net), encoded (before the commit), those
    that the commit names (staged, won, tar_put, table_put, manifest_put), done (before it is
    said), tar_closed, table_closed. With `prompt`, only where an image of the batch has that
    word in its prompt.
    """

    point: str
    act: str
    folder: str
    times: int = 1
    prompt: str = ""

    @property
    def struck(self) -> int:
        """How often it has been met."""
        return len(list(Path(self.folder).glob("[0-9]*")))

    def mend(self) -> None:
        """From now on nobody meets it."""
        Path(self.folder, "mended").touch()

    def take(self) -> bool:
        """Whether it is this one's turn; the count is safe between processes."""
        if Path(self.folder, "mended").exists():
            return False
        for turn in range(self.times):
            try:
                os.close(os.open(f"{self.folder}/{turn}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            return True
        return False


def as_variable(traps: Sequence[Trap]) -> dict[str, str]:
    """The environment that makes a renderer meet these."""
    return {VARIABLE: json.dumps([asdict(trap) for trap in traps])}


def _balloon() -> None:
    """Grow until the kernel ends the process."""
    kept = []
    while True:
        kept.append(bytearray(os.urandom(1 << 12) * 256))


def _raise(error: Exception) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def _acts() -> dict[str, Callable[[], None]]:
    import torch

    return {
        # To this thread, which then runs no further; the process as a whole follows.
        "kill": lambda: signal.pthread_kill(threading.get_ident(), signal.SIGKILL),
        "stop": lambda: signal.pthread_kill(threading.get_ident(), signal.SIGSTOP),
        "exit": lambda: os._exit(139),
        "hang": lambda: time.sleep(3600),
        "balloon": _balloon,
        "out_of_memory": _raise(torch.OutOfMemoryError("CUDA out of memory (made up)")),
        "sticky": _raise(RuntimeError("CUDA error: device-side assert triggered (made up)")),
        "bug": _raise(ValueError("the writer broke (made up)")),
        "disk": _raise(OSError(28, "No space left on device")),
        "pass": lambda: None,
    }


class Injector:
    """Sets this process's traps."""

    def __init__(self, traps: Sequence[Trap], pace_s: float) -> None:
        self._traps = list(traps)
        self._pace_s = pace_s
        self._broken: list[int] = []
        self._acts = _acts()

    @classmethod
    def from_environment(cls) -> "Injector":
        """The traps that the environment names."""
        found = json.loads(os.environ.get(VARIABLE, "[]"))
        pace = float(os.environ.get("FEWSTEP_CHAOS_PACE_S", "0"))
        return cls([Trap(**one) for one in found], pace)

    def _places(self, prompts: Sequence[str]) -> list[int]:
        """Which pictures of the batch are to come out as no numbers."""
        traps = [trap for trap in self._traps if trap.act == "nan"]
        return [
            place
            for place, prompt in enumerate(prompts)
            if any(trap.prompt in prompt and trap.take() for trap in traps)
        ]

    def at(self, point: str, prompts: Sequence[str] = ()) -> bool:
        """Spring what waits at `point`; whether anything did."""
        sprung = False
        for trap in self._traps:
            if trap.point == point and trap.act != "nan" and _fits(trap, prompts) and trap.take():
                sprung = True
                self._acts[trap.act]()
        return sprung

    def install(self, engine: Any) -> None:
        """Patch this process: its device, its batches, its commits."""
        from jobs import derived_files, staging
        from workers import deliver
        from workers.render import BatchRenderer

        engine.unet.register_forward_pre_hook(lambda *_: self._nothing(self.at("step")))
        engine.vae.decode = self._decode(engine.vae.decode)
        render, at, pace = BatchRenderer.render, self.at, self._pace_s

        def batch(this: Any, recipe: Any, images: Any, *rest: Any) -> Any:
            prompts = [image.row.prompt for image in images]
            at("batch", prompts)
            self._broken = self._places(prompts)
            # A slower device: a fault that takes a second finds it at work.
            time.sleep(pace)
            return render(this, recipe, images, *rest)

        BatchRenderer.render = batch  # type: ignore[method-assign]
        staging.write_tar = self._then("tar_closed", staging.write_tar)
        derived_files.build_table = self._then("table_closed", derived_files.build_table)
        deliver.commit_unit = self._commit  # type: ignore[assignment]
        deliver.adopt_unit = self._adopt  # type: ignore[assignment]

    def _then(self, point: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **rest: Any) -> Any:
            found = call(*arguments, **rest)
            self.at(point)
            return found

        return called

    def _commit(self, *arguments: Any, **rest: Any) -> Any:
        self.at("encoded")
        found = commit_unit(*arguments, **rest, failpoint=self._failpoint)
        self.at("done")
        return found

    def _adopt(self, *arguments: Any, **rest: Any) -> Any:
        return adopt_unit(*arguments, **rest, failpoint=self._failpoint)

    def _failpoint(self, step: str) -> None:
        self.at(step)

    def _decode(self, decode: Callable[..., Any]) -> Callable[..., Any]:
        def decoded(*arguments: Any, **rest: Any) -> Any:
            found = decode(*arguments, **rest)
            for place in self._broken:
                found[0][place] = float("nan")
            return found

        return decoded

    @staticmethod
    def _nothing(_: bool) -> None:
        """A hook's answer that changes nothing."""


def _fits(trap: Trap, prompts: Sequence[str]) -> bool:
    return not trap.prompt or any(trap.prompt in prompt for prompt in prompts)
