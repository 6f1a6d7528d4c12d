"""A distillation on Ray Train: its processes are placed, watched, and started again if they die."""

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.train import TrainingFailedError
from ray.util.queue import Queue

from jobs.distillation import Distillation
from jobs.errors import BadConfiguration, FewstepError
from jobs.places import place_of
from jobs.settings import Settings

#: Deaths of a process that a run survives; each goes back to the last checkpoint.
MAX_FAILURES = 3

Message = dict[str, Any]


def distill(
    plan: Distillation, settings: Settings, folder: Path, say: Callable[[str], None]
) -> Message:
    """Run `plan` on the cluster that was joined; its result. `folder` is for Ray Train's own notes.

    Raises the error that stopped it; NoCapacity or BadConfiguration where Ray gave up.
    """
    messages = Queue(actor_options={"num_cpus": 0})
    heard = _Hearing(messages, say)
    heard.start()
    try:
        _trainer(plan, settings, folder, messages).fit()
    except (RayError, TrainingFailedError) as error:
        raise BadConfiguration(
            f"the training failed {MAX_FAILURES + 1} times, or Ray did: {_last_line(error)}"[:400],
            where="Ray Train",
            remedy="the same command goes on from the last checkpoint; where memory ran out, give "
            "a smaller --batch or --gradient-checkpointing in another --out",
        ) from error
    finally:
        messages.put({"end": True})
        heard.join()
        messages.shutdown()
    if heard.error is not None:
        raise heard.error
    return heard.result


def _last_line(error: Exception) -> str:
    """What was raised, of the text of whoever passes it on with its traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _trainer(plan: Distillation, settings: Settings, folder: Path, messages: Queue) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    on_gpu = bool(ray.cluster_resources().get("GPU", 0))
    return TorchTrainer(
        train_process,
        train_loop_config={
            "plan": plan.model_dump_json(),
            "settings": settings,
            "messages": messages,
        },
        scaling_config=ScalingConfig(num_workers=plan.processes, use_gpu=on_gpu),
        run_config=RunConfig(
            name=plan.name,
            storage_path=str(folder),
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
        ),
    )


def train_process(config: dict[str, Any]) -> None:
    """One process of a run, in Ray Train's worker. What a person must read is told, not raised.

    An error of ours would be the same the next time: only what Ray sees is tried again.
    """
    from ray.train import get_context

    from workers.distill_run import DistillRun

    plan = Distillation.model_validate_json(config["plan"])
    messages, settings = config["messages"], config["settings"]
    rank = get_context().get_world_rank()
    try:
        run = DistillRun(plan, place_of(plan.out, settings), settings, messages.put, rank)
        result = run.run()
    except FewstepError as error:
        messages.put({"error": error})
        return
    if rank == 0:
        messages.put({"result": result})


class _Hearing(threading.Thread):
    """Passes on what the processes say while the run goes on."""

    def __init__(self, messages: Queue, say: Callable[[str], None]) -> None:
        super().__init__(name="hearing", daemon=True)
        self._messages, self._say = messages, say
        self.result: Message = {}
        self.error: FewstepError | None = None

    def run(self) -> None:
        """Until the end is told."""
        while not (message := self._messages.get()).get("end"):
            if "text" in message:
                self._say(message["text"])
            elif "step" in message:
                self._say(
                    "step {step} of {of}, loss {loss:.5f}, {s_per_step:.2f} s a step".format(
                        **message
                    )
                )
            self.result = message.get("result", self.result)
            self.error = message.get("error", self.error)


def main(words: list[str]) -> int:
    """`python -m scheduler.distill PLAN FOLDER`: the driver, for `fewstep distill`.

    The result is one JSON object on standard output; an error of ours is its line on standard
    error, and its exit status.
    """
    from scheduler.pool import Pool

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    settings = Settings()
    plan = Distillation.model_validate_json(Path(words[0]).read_text("utf-8"))
    Pool.connect(settings.ray_address)
    try:
        result = distill(plan, settings, Path(words[1]), say)
    except FewstepError as error:
        say(f"fewstep: {' '.join(str(error).split())}")
        return error.exit_code
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
