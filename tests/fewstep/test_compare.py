"""`fewstep compare`: its table and page from datasets made here, and the whole command once."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from fewstep.compare_page import page
from fewstep.compare_pictures import beside, shown
from fewstep.compare_plot import plot
from fewstep.compare_rows import Rendered
from fewstep.compare_table import Comparison, Line, markdown
from jobs.comparison import Row
from jobs.recipe import RecipeRequest
from workers.scores import Mean, Scores

HOSTILE = "<script>alert('&amp;')</script>"
PLAN = "reference = 1\n[[rows]]\nname = 'few'\nsteps = [1, 2]\n"


class Judged:
    """A scorer that has judged already."""

    agreement_title, features_title, share = "agreement", "features", True
    truth = None
    missing = ("perceptual distance: lpips is not installed",)


def dataset(folder: Path, images: dict[int, str], failed: int | None = None) -> Path:
    """A dataset of one shard: image number -> prompt, each picture of one colour."""
    (folder / "train").mkdir(parents=True)
    rows = []
    with tarfile.open(folder / "train" / "00000.tar", "w") as tar:
        for image, prompt in images.items():
            file = io.BytesIO()
            Image.new("RGB", (8, 8), (image, 0, 0)).save(file, "PNG")
            member = tarfile.TarInfo(f"{image:06d}.png")
            member.size = file.tell()
            file.seek(0)
            status = "failed" if image == failed else "ok"
            rows.append(
                {"image": image, "prompt": prompt, "status": status, "file_name": member.name}
            )
            if status == "ok":
                tar.addfile(member, file)
    parquet.write_table(pa.Table.from_pylist(rows), folder / "train" / "00000.parquet")
    return folder


def test_pictures_stand_beside_the_reference_s_of_the_same_image(tmp_path: Path) -> None:
    ours = dataset(tmp_path / "a", {0: "x", 1: "y", 2: "z"}, failed=0)
    theirs = dataset(tmp_path / "b", {0: "x", 1: "y", 2: "z"}, failed=1)
    found = [(one.image, other is not None) for one, other in beside(ours, theirs)]
    assert found == [(1, False), (2, True)]
    assert [one.pixels[0, 0, 0] for one in shown(ours)] == [1, 2]
    assert [other for _, other in beside(ours, None)] == [None, None]


@pytest.fixture(name="comparison")
def of_two_rows(tmp_path: Path) -> Comparison:
    """Two rows: one that scored, one where nothing could be told."""
    timing = {
        "steps": 4,
        "unet_calls_per_step": 2,
        "ok": 2,
        "device_seconds": 0.5,
        "images_per_second": 3.21,
        "memory_bytes": 5 << 20,
    }
    lines = []
    for number, scores in enumerate(
        (
            Scores(2, 12.34, Mean(0.5, 0.1, 2), Mean(0.75, 0.2, 2), {"shape": Mean(1.0, 0.3, 2)}),
            Scores(2, None, None, None, {}),
        )
    ):
        folder = dataset(tmp_path / str(number), {0: HOSTILE, 1: "plain"})
        row = Row(name=f"row {HOSTILE} {number}", group=HOSTILE, recipe=RecipeRequest())
        lines.append(Line(Rendered(row, folder, timing, {"model": "tiny"}), scores))
    return Comparison({"model": HOSTILE}, Judged(), tuple(lines), 0)  # type: ignore[arg-type]


def test_the_table_says_what_was_measured_and_what_was_not(comparison: Comparison) -> None:
    lines = markdown(comparison).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:4]]
    assert cells[0][1:] == [
        *("UNet calls", "agreement", "shape %", "FD", "perceptual", "ms", "images/s", "MiB")
    ]
    assert cells[2][1:] == [
        *("8", "75.0 ± 20.0", "100.0 ± 30.0", "12.3", "0.500 ± 0.100", "250.0", "3.2", "5")
    ]
    assert cells[3][1:] == ["8", "-", "-", "-", "-", "250.0", "3.2", "5"]
    text = "\n".join(lines)
    assert "Fewer than 10,000 pictures" in text
    assert "Left out: perceptual distance: lpips is not installed" in text
    found = json.loads(json.dumps(comparison.as_json()))
    assert found["rows"][0]["agreement"] == {"mean": 0.75, "error": 0.2, "n": 2}


def test_the_page_needs_nothing_else_and_escapes_what_users_wrote(comparison: Comparison) -> None:
    text = page(comparison)
    assert "<script" not in text
    assert "http" not in text
    assert text.count("data:image/png;base64,") == 4
    assert "&lt;script&gt;alert(&#x27;&amp;amp;&#x27;)" in text


def test_a_plot_of_one_point_has_a_place_for_it() -> None:
    assert 'cx="' in plot("title", "below", {"one": [(5.0, 7.0, "4")]})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "sd15"], "--prompts: prompts are drawn for the tiny model alone"),
        (["--images", "1"], "--images: 1 prompts will not do"),
        (["--model", "none"], "none"),
        (["--renderers", "0"], "--renderers: 0 renderers will not do"),
        (["--seed", "-1"], "--seed"),
        (["--repeats", "0"], "--repeats"),
    ],
)
def test_options_that_will_not_do_are_refused_before_anything_starts(
    tmp_path: Path, options: list[str], said: str
) -> None:
    done = compare(tmp_path, *options)
    assert done.returncode in (2, 4), done.stderr
    assert said in done.stderr
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def compare(tmp_path: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    """The command, on a plan of two rows."""
    (tmp_path / "plan.toml").write_text(PLAN, "utf-8")
    command = [sys.executable, "-m", "fewstep", "compare", "plan.toml", "--out", "out", *options]
    environment = {"FEWSTEP_HOME": str(tmp_path / "home")}
    return subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.ray
def test_the_command_renders_scores_and_writes_table_and_page(tmp_path: Path) -> None:
    done = compare(tmp_path, "--images", "6", "--renderers", "1", "--json")
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "compare.json",
        "compare.md",
        "compare.html",
    }
    assert said == json.loads((tmp_path / "out" / "compare.json").read_text("utf-8"))
    assert [row["name"] for row in said["rows"]] == ["few, 1 step", "few, 2 steps"]
    assert [row["unet_calls"] for row in said["rows"]] == [1, 2]
    assert said["rows"][1]["perceptual"]["mean"] == pytest.approx(0.0, abs=1e-9)
    assert said["rows"][0]["perceptual"]["mean"] > 0
    assert all(row["images"] == 6 and row["memory_mib"] > 50 for row in said["rows"])
    assert np.isfinite([row["frechet"] for row in said["rows"]]).all()
