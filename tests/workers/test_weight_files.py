"""Weights that are damaged, pickled, or bring code: refused with the file's name, never loaded."""

import gzip
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from jobs.catalog import load_catalog
from jobs.errors import BadConfiguration
from jobs.recipe import RecipeRequest, Weights
from workers import tiny
from workers.base_model import BaseFiles, load_base
from workers.engine import pick_device
from workers.weight_files import check_files
from workers.weights import locate, verified


def safetensors(header: object, body: bytes = b"", length: int | None = None) -> bytes:
    """A file of that header, whatever it says."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def tensor(first: int, stop: int, numbers: int = 2) -> dict[str, object]:
    return {"dtype": "F32", "shape": [numbers], "data_offsets": [first, stop]}


class Trap:
    """What unpickling runs."""

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, ("/tmp/fewstep-was-unpickled",))


DAMAGED = {
    "empty": (b"", "too small"),
    "shorter than a header": (b"abc", "too small"),
    "a header of an exabyte": (struct.pack("<Q", 10**18) + b"{}", "too large"),
    "a header beyond the file": (safetensors({}, length=1000), "invalid header length"),
    "no JSON": (struct.pack("<Q", 4) + b"abcd", "invalid JSON"),
    "truncated": (safetensors({"a": tensor(0, 8)}, b"\0" * 4), "not fully covered"),
    "overlapping": (safetensors({"a": tensor(0, 8), "b": tensor(4, 12)}, b"\0" * 12), "offset"),
    "beyond its bytes": (safetensors({"a": tensor(0, 2**62)}, b"\0" * 8), "a"),
    "a shape that overflows": (safetensors({"a": tensor(0, 8, 2**62)}, b"\0" * 8), "overflow"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_says_what_is_wrong(tmp_path: Path, name: str) -> None:
    data, reason = DAMAGED[name]
    (tmp_path / "unet.safetensors").write_bytes(data)
    with pytest.raises(BadConfiguration, match=reason) as caught:
        verified(Weights(source=f"path:{tmp_path}"))
    assert str(caught.value.where).endswith("unet.safetensors")
    assert caught.value.remedy


def test_a_pickle_is_refused_whatever_its_name(tmp_path: Path) -> None:
    file = tmp_path / "unet.safetensors"
    packed = pickle.dumps(Trap())
    with zipfile.ZipFile(tmp_path / "archive", "w") as archive:
        archive.writestr("data.pkl", packed)
    for data in (packed, (tmp_path / "archive").read_bytes(), gzip.compress(packed)):
        file.write_bytes(data)
        with pytest.raises(BadConfiguration, match="pickle or an archive"):
            check_files(tmp_path)
    assert not Path("/tmp/fewstep-was-unpickled").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.ckpt", "model.PT", "a.pth", "a.pkl"])
def test_pickles_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Trap()))
    for source in (tmp_path, tmp_path / name):
        with pytest.raises(BadConfiguration, match=f"{name} is pickled"):
            locate(Weights(source=f"path:{source}"))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A copy of the shipped base model."""
    return Path(shutil.copytree(tiny.MODEL_DIR, tmp_path / "model"))


def test_code_beside_weights_is_never_run(base: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    code = f"open({str(ran)!r}, 'w').close()\nfrom diffusers import StableDiffusionPipeline as X\n"
    for place in (base / "pipeline.py", base / "unet" / "trap.py"):
        place.write_text(code, "utf-8")
    index = json.loads((base / "model_index.json").read_text("utf-8"))
    for trap in ({"unet": ["trap", "X"]}, {"_class_name": ["pipeline", "X"]}):
        (base / "model_index.json").write_text(json.dumps(index | trap), "utf-8")
        pick_device(threads=1)
        with pytest.raises(BadConfiguration, match="do not load"):
            load_base(load_catalog().resolve(RecipeRequest()), BaseFiles(base, "", base))
        assert not ran.exists()


@pytest.mark.parametrize(
    ("hub_access", "before", "offline"),
    # The image says "1", so that no process of it asks a hub unless the operator wants it.
    [(False, {}, True), (True, {"HF_HUB_OFFLINE": "1"}, False)],
)
def test_a_renderers_process_runs_no_remote_code_and_asks_a_hub_only_where_it_may(
    hub_access: bool, before: dict[str, str], offline: bool
) -> None:
    code = f"""
from workers.weight_files import forbid_remote_code
forbid_remote_code(hub_access={hub_access})
from diffusers.utils.constants import DIFFUSERS_DISABLE_REMOTE_CODE
from huggingface_hub.constants import HF_HUB_OFFLINE
print(DIFFUSERS_DISABLE_REMOTE_CODE, HF_HUB_OFFLINE)
"""
    bare = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "DIFF"))
    }
    said = subprocess.run(
        [sys.executable, "-c", code], env=bare | before, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["True", str(offline)]
