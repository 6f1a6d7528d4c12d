"""Weights are what the catalog says, or they are not loaded."""

import shutil
from pathlib import Path

import pytest

from jobs.errors import BadConfiguration
from jobs.recipe import Weights
from workers import tiny
from workers.tiny_digests import shipped_files, with_digests
from workers.weights import digest, locate, verified


def test_the_catalog_knows_the_shipped_weights() -> None:
    texts = [file.read_text("utf-8") for file in shipped_files()]
    assert with_digests(texts) == texts, "run: python -m workers.tiny_digests"


def test_one_changed_byte_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "lora"
    shutil.copytree(tiny.LCM_LORA_DIR, folder)
    weights = Weights(source=f"path:{folder}", sha256=digest(folder))
    assert verified(weights) == (folder, weights.sha256)
    file = next(folder.glob("*.safetensors"))
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(bytes(raw))
    with pytest.raises(BadConfiguration, match="damaged"):
        verified(weights)


@pytest.mark.parametrize("source", ["path:/nowhere", "builtin:nothing"])
def test_a_missing_folder_is_named(source: str) -> None:
    with pytest.raises(BadConfiguration, match=source.split(":")[1]):
        locate(Weights(source=source))


def test_pickles_are_not_weights(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(BadConfiguration, match="pickled"):
        locate(Weights(source=f"path:{tmp_path}"))


def test_a_hub_is_not_asked_unless_allowed() -> None:
    with pytest.raises(BadConfiguration, match="FEWSTEP_HUB_ACCESS"):
        locate(Weights(source="hub:nobody/nothing", revision="abc"))
