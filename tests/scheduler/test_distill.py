"""A distillation that Ray Train gives up: one error that a person can read."""

import queue
from pathlib import Path
from typing import Any, NoReturn

import pytest
from ray.train import ControllerError, WorkerGroupError

from jobs.errors import BadConfiguration
from jobs.settings import Settings
from scheduler import distill

SAID = """[Rank 0 Error Snippet]:
Traceback (most recent call last):
  File "workers/distill_run.py", line 1, in run
torch.OutOfMemoryError: CUDA out of memory (made up)
"""


class Messages(queue.Queue[Any]):
    """Ray's queue without Ray."""

    def __init__(self, actor_options: object) -> None:
        super().__init__()

    def shutdown(self, immediate: bool = False) -> None:
        """Nothing runs."""


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (WorkerGroupError(SAID, {}), "CUDA out of memory"),
        (ControllerError(RuntimeError("no node came (made up)")), "no node came"),
    ],
)
def test_a_training_that_failed_too_often_is_told_in_a_line(
    error: Exception, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Trainer:
        def fit(self) -> NoReturn:
            raise error

    monkeypatch.setattr(distill, "Queue", Messages)
    monkeypatch.setattr(distill, "_trainer", lambda *_: Trainer())
    with pytest.raises(BadConfiguration, match=says) as told:
        distill.distill(None, Settings(), tmp_path, lambda text: None)  # type: ignore[arg-type]
    assert "checkpoint" in str(told.value.remedy)
    assert "Traceback" not in str(told.value)
