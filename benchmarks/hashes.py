"""How far perceptual hashes move with small changes, and how apart other pictures are.

    fewstep render examples/prompts.txt --out seeds --repeats 10 --seed 1
    python -m benchmarks.hashes seeds

The folder holds a fetched dataset with several pictures of each prompt.
"""

import argparse
import io
import tarfile
import time
import tracemalloc
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.duplicates import near_duplicates
from workers.perceptual_hash import perceptual_hash

#: Bits that two hashes may differ in and still be near.
WITHIN = 3
RANDOM_HASHES = 1_000_000
Picture = NDArray[np.uint8]


def main() -> None:
    """Print each figure on a line of its own."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("folder", type=Path)
    by_prompt = read_pictures(asked.parse_args().folder)
    pictures = [one for some in by_prompt.values() for one in some]
    rng = np.random.default_rng(0)
    print(f"{len(pictures)} pictures of {len(by_prompt)} prompts; within {WITHIN} bits:")
    for name, changed in (
        ("the same at JPEG quality 90", [as_jpeg(one, 90) for one in pictures]),
        ("the same at JPEG quality 50", [as_jpeg(one, 50) for one in pictures]),
        ("the same with noise of 3 levels", [noisy(one, 3, rng) for one in pictures]),
    ):
        near = sum(close(*pair) for pair in zip(pictures, changed, strict=True))
        print(f"  {name}: {near / len(pictures):.1%}")
    hashes = {prompt: [perceptual_hash(one) for one in some] for prompt, some in by_prompt.items()}
    _pairs("other seeds of one prompt", [p for s in hashes.values() for p in combinations(s, 2)])
    others = combinations(hashes.values(), 2)
    _pairs("other prompts", [(a, b) for some, more in others for a in some for b in more])
    for side in (64, 1024):
        _time_a_hash(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
    _time_a_million(rng)
    _time_half_alike(rng)


def read_pictures(folder: Path) -> dict[str, list[Picture]]:
    """Prompt -> its pictures [h, w, 3]."""
    found: dict[str, list[Picture]] = defaultdict(list)
    for path in sorted((folder / "train").glob("*.tar")):
        with tarfile.open(path) as tar:
            members = {one.name: tar.extractfile(one).read() for one in tar}  # type: ignore[union-attr]
        for name, data in members.items():
            if name.endswith(".png"):
                prompt = members[name.removesuffix(".png") + ".txt"].decode()
                found[prompt].append(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    return found


def as_jpeg(picture: Picture, quality: int) -> Picture:
    """What is left of it after JPEG."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def noisy(picture: Picture, levels: float, rng: np.random.Generator) -> Picture:
    """With noise of that standard deviation, of 255 levels."""
    noise = rng.normal(0, levels, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def close(one: Picture, other: Picture) -> bool:
    """Whether their hashes are near."""
    return (perceptual_hash(one) ^ perceptual_hash(other)).bit_count() <= WITHIN


def _pairs(name: str, pairs: list[tuple[int, int]]) -> None:
    near = sum((one ^ other).bit_count() <= WITHIN for one, other in pairs)
    print(f"  {name}: {near:,} of {len(pairs):,} pairs")


def _time_a_hash(picture: Picture) -> None:
    started = time.perf_counter()
    for _ in range(20):
        perceptual_hash(picture)
    took = (time.perf_counter() - started) / 20 * 1e3
    print(f"a hash at {picture.shape[1]} x {picture.shape[0]}: {took:.2f} ms")


def _time_a_million(rng: np.random.Generator) -> None:
    hashes = rng.integers(0, 2**64, RANDOM_HASHES, dtype=np.uint64)
    started = time.perf_counter()
    near_duplicates(hashes, WITHIN)
    took = time.perf_counter() - started
    tracemalloc.start()
    near_duplicates(hashes, WITHIN)
    peak = tracemalloc.get_traced_memory()[1]
    print(f"a million random hashes compared: {took:.1f} s, {peak / 2**20:.0f} MiB")


def _time_half_alike(rng: np.random.Generator) -> None:
    """As pictures on one background would be: half of them agree in a quarter of their bits."""
    hashes = rng.integers(0, 2**64, RANDOM_HASHES, dtype=np.uint64)
    hashes[::2] &= np.uint64(2**64 - 2**16)
    started = time.perf_counter()
    near_duplicates(hashes, WITHIN)
    print(f"a million, half of them with 16 equal bits: {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
