"""Making a picture again from its row on this machine, and comparing the two."""

import hashlib
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from jobs.errors import InvalidInput, RenderFailed
from jobs.original import Original
from jobs.records import Maker
from jobs.settings import Settings
from workers.encode import encode
from workers.loading import load_parts
from workers.provenance import settings_of
from workers.rendered import Rendered
from workers.weight_files import forbid_remote_code

#: `equal`: the same file. `same_pixels`: another file with the same pixels. `close`: no value of a
#: pixel is further away than the tolerance.
Verdict = Literal["equal", "same_pixels", "close", "different"]
#: What both the row and the engine here tell, and what may change last bits or more.
_TOLD = (
    *("model_sha256", "accelerator_sha256", "styles"),
    *("device", "torch", "diffusers", "compiled", "fewstep"),
)


@dataclass(frozen=True)
class Difference:
    """How far two pictures are apart, in steps of a pixel's value (0 to 255)."""

    max_abs: int
    mean_abs: float


@dataclass(frozen=True)
class Repro:
    """What came of making a picture again."""

    verdict: Verdict
    #: None where the two have not the same size.
    difference: Difference | None
    #: Name -> (in the row, here), of what is not the same.
    unlike: dict[str, tuple[str, str]]
    #: The file that was made here.
    data: bytes

    @property
    def agrees(self) -> bool:
        """Whether it is the same picture, within the tolerance."""
        return self.verdict != "different"


class _Unwatched:
    """Takes the signs that the device does not hang; nobody waits for them."""

    def moved(self) -> None:
        """It does not."""


def make_again(original: Original, theirs: bytes, settings: Settings, tolerance: int = 0) -> Repro:
    """Render the picture of a row once more, as its renderer did, and compare it with its file.

    `tolerance`: how far a pixel's value may be off, in steps of 255. Raises InvalidInput for a
    row without a picture, or a file that is not the row's; RenderFailed where none came out; what
    loading raises.
    """
    _check(original, theirs)
    forbid_remote_code(hub_access=settings.hub_access)
    recipe, image = original.recipe, original.image
    # Compiled nets differ from others in their last bits: as the row says that it was made.
    compiled = original.row["compiled"]
    with tempfile.TemporaryDirectory(prefix="fewstep-repro-") as folder:
        # Without the memory of this node: what it lowered for others is no limit for one picture.
        here = settings.model_copy(update={"compile": compiled, "home": Path(folder)})
        parts = load_parts(recipe.model_dump_json(), here, _Unwatched())
        renderer = parts.renderer
        [made] = renderer.finish(renderer.start(recipe, [image]))
    if made.pixels is None:
        raise RenderFailed(
            f"no picture came out here: {made.error}", where=original.row["key"], remedy=""
        )
    job = original.job.model_copy(update={"recipe": recipe})
    data = encode(made.pixels, job.format, job.quality, settings_of(job, image))
    verdict, difference = compare(theirs, data, tolerance)
    return Repro(verdict, difference, _unlike(original, parts.maker("here"), made), data)


def compare(theirs: bytes, ours: bytes, tolerance: int) -> tuple[Verdict, Difference | None]:
    """Two picture files: by their bytes first, then pixel by pixel."""
    if theirs == ours:
        return "equal", Difference(0, 0.0)
    one, other = _pixels(theirs), _pixels(ours)
    if one.shape != other.shape:
        return "different", None
    apart = np.abs(one.astype(np.int16) - other.astype(np.int16))
    found = Difference(int(apart.max()), float(apart.mean()))
    if found.max_abs == 0:
        return "same_pixels", found
    return "close" if found.max_abs <= tolerance else "different", found


def _check(original: Original, theirs: bytes) -> None:
    row = original.row
    if row["status"] != "ok":
        raise InvalidInput(
            f"there is no picture to compare with: {row['error']}"[:300],
            where=row["key"],
            remedy="fewstep retry-failed makes what failed",
        )
    if hashlib.sha256(theirs).hexdigest() != row["sha256"]:
        raise InvalidInput(
            "the file is not the one that the row tells of",
            where=row["file_name"],
            remedy="its bytes were changed: fetch the dataset again",
        )


def _unlike(original: Original, maker: Maker, made: Rendered) -> dict[str, tuple[str, str]]:
    here: dict[str, Any] = {name: getattr(maker, name) for name in _TOLD}
    here["batch_images"] = made.batch_images
    here["dtype"] = original.recipe.dtype
    pairs = {name: (_text(original.row[name]), _text(value)) for name, value in here.items()}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _text(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list | tuple) else str(value)


def _pixels(data: bytes) -> NDArray[np.uint8]:
    try:
        with Pillow.open(io.BytesIO(data)) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise InvalidInput(f"the picture cannot be read: {error}", where="its file") from error
