"""`fewstep distill`: the documented command on a real Ray, with a kill -9; and what it refuses."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from fewstep.cli import app
from jobs.catalog import load_catalog
from jobs.distillation import Distillation
from jobs.places import FolderPlace
from jobs.recipe import RecipeRequest
from jobs.settings import Settings
from tests.captioned_tars import picture, write_members, write_scenes
from tests.servers import wait_until
from workers.distill_run import DistillRun
from workers.engine import load_engine
from workers.lora import WEIGHTS_FILE

DOCS = Path(__file__).resolve().parents[2] / "docs" / "distill.md"


def documented() -> list[str]:
    """The words of the worked example's command."""
    block = DOCS.read_text("utf-8").partition("<!-- tested -->")[2].split("```")[1]
    command = block.removeprefix("sh\n").replace("\\\n", " ").strip()
    words = shlex.split(command)
    assert words[:2] == ["fewstep", "distill"]
    return words[1:]


def trainers(root: Path) -> list[psutil.Process]:
    """Processes of Ray Train's that work for a command whose folder is `root`."""
    found = []
    for process in psutil.process_iter():
        try:
            told = " ".join(process.cmdline())
            if "RayTrainWorker" in told and str(root) in process.environ().get("TMPDIR", ""):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.ray
def test_the_documented_command_survives_a_kill_and_ends_as_an_unbroken_run(
    home: Path, tmp_path: Path
) -> None:
    """Its training process is killed with SIGKILL after a checkpoint: same adapter, bit by bit."""
    write_scenes(tmp_path / "pictures" / "train" / "00000.tar", 12)
    out = tmp_path / "mine"
    command = [sys.executable, "-m", "fewstep", *documented(), "--json"]
    environment = os.environ | {"TMPDIR": str(tmp_path), "FEWSTEP_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        saved = out / "checkpoints" / "0000001.pt"
        wait_until(saved.exists, "the first checkpoint", 180)
        (trainer,) = trainers(tmp_path)
        trainer.kill()
        printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    result = json.loads(printed)
    assert result["resumed_from"] >= 1, "the kill came too late to prove anything"
    assert result["steps"] == 8

    plan = Distillation.model_validate_json((out / "plan.json").read_text())
    unbroken = DistillRun(
        plan, FolderPlace(tmp_path / "whole"), Settings(threads=1), lambda _: None
    ).run()
    assert unbroken["resumed_from"] == 0
    # Not the files: safetensors writes its metadata in any order.
    one, other = (load_file(folder / WEIGHTS_FILE) for folder in (out, tmp_path / "whole"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)

    catalog = load_catalog(out / "accelerator.toml")
    recipe = catalog.resolve(RecipeRequest(accelerator="mine"))
    assert load_engine(recipe, torch.device("cpu")).accelerator_sha256 == result["sha256"]
    again = CliRunner().invoke(app, [*in_folder(documented(), tmp_path), "--json"])
    assert (again.exit_code, json.loads(again.stdout)) == (0, result)
    other = CliRunner().invoke(app, [*in_folder(documented(), tmp_path), "--rank", "8"])
    assert (other.exit_code, "another distillation" in other.stderr) == (4, True)
    write_scenes(tmp_path / "pictures" / "train" / "00000.tar", 13)
    changed = CliRunner().invoke(app, in_folder(documented(), tmp_path))
    assert (changed.exit_code, "with other pictures" in changed.stderr) == (4, True)


def in_folder(words: list[str], folder: Path) -> list[str]:
    """The command with its relative places in `folder`."""
    return [
        str(folder / word) if word in ("pictures", "mine") and words[at - 1] != "--name" else word
        for at, word in enumerate(words)
    ]


REFUSED: dict[str, tuple[list[str], int, str]] = {
    "no such base": (["--model", "nobody"], 2, "no model 'nobody'"),
    "a name that exists": (["--name", "lcm-tiny"], 4, "there is an accelerator 'lcm-tiny'"),
    "a bad name": (["--name", "Mine!"], 2, "--name"),
    "no captions": (["{bare}"], 2, "1 without a caption"),
    "no folder": (["{none}"], 2, "no such folder"),
    "pictures too small": (["--width", "96", "--height", "96"], 2, "smaller than 96x96"),
    "a size that the base has not": (["--width", "65"], 2, "width"),
    "a solver that does not divide": (["--solver-steps", "7"], 2, "solver_steps must divide"),
    "w upside down": (["--w-min", "9", "--w-max", "2"], 2, "w_min"),
    "no such module": (["--target", "lm_head"], 2, "--targets"),
    "no such loss": (["--loss", "l1"], 2, "--loss"),
    "a folder that cannot be written": (["--out", "{file}/x"], 2, "cannot be written"),
    "a folder in use": (["--out", "{used}"], 4, "other files"),
    "a store without a bucket": (["--out", "s3://no-such-bucket-here/x"], 3, "create the bucket"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_before_any_work(
    case: str, tmp_path: Path, moto_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, status, says = REFUSED[case]
    for name, value in (("ENDPOINT", moto_url), ("ACCESS_KEY", "key"), ("SECRET_KEY", "secret")):
        monkeypatch.setenv(f"FEWSTEP_S3_{name}", value)
    good = write_scenes(tmp_path / "good" / "0.tar", 3).parent
    bare = write_members(tmp_path / "bare" / "0.tar", [("0.png", picture(64, 64))]).parent
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").write_text("")
    places = {"bare": bare, "none": tmp_path / "none", "used": tmp_path / "used"}
    places["file"] = tmp_path / "used" / "file"
    given = [word.format(**places) for word in words]
    started: list[Any] = []
    monkeypatch.setattr("fewstep.cli_distill._train", lambda *given: started.append(given))
    usual = [str(good), "--name", "mine", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["distill", *usual, *given])
    assert done.exit_code == status
    assert re.search(re.escape(says), " ".join(done.stderr.split())), done.stderr
    assert not started
    assert not (tmp_path / "out").exists()
