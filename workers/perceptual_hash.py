"""The perceptual hash of a picture: 64 bits that stay where it changes a little.

Half of them are the signs of its coarsest brightness waves, a quarter each those of its two
colour differences: a hash of brightness alone takes a red circle for a blue one.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: Side of the small picture whose waves are taken, and waves by plane: Y, Cb, Cr.
_SIDE = 32
_WAVES = (32, 16, 16)
#: Waves of colour weaker than this are none: grey pictures have only noise there. In levels of 255.
_LEAST = 2.0


def perceptual_hash(picture: NDArray[np.uint8]) -> int:
    """The hash of a picture [h, w, 3] as an unsigned number of 64 bits.

    Waves are those of the discrete cosine transform (DCT-II), as in pHash (Zauner 2010), the
    coarsest first; a bit of brightness says whether a wave is above their median.
    """
    small = Image.fromarray(picture).convert("YCbCr").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    planes = np.asarray(small, dtype=np.float64).transpose(2, 0, 1)
    waves = _COSINES @ (planes - 128.0) @ _COSINES.T
    light, *colours = (
        plane[_ROWS[:count], _COLUMNS[:count]]
        for plane, count in zip(waves, (_WAVES[0] + 1, *_WAVES[1:]), strict=True)
    )
    # How bright it is as a whole says nothing of what it shows; how coloured it is does.
    bits = [light[1:] > np.median(light[1:]), *(wave > _LEAST for wave in colours)]
    return int.from_bytes(np.packbits(np.concatenate(bits)).tobytes(), "big")


def _cosines() -> NDArray[np.float64]:
    """The lowest 8 rows of the DCT-II, scaled so that the first is a mean."""
    waves, places = np.arange(8)[:, None], np.arange(_SIDE)[None, :]
    return np.cos(np.pi * waves * (2 * places + 1) / (2 * _SIDE)) / _SIDE


def _coarsest_first() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    places = sorted(((y, x) for y in range(8) for x in range(8)), key=lambda one: (sum(one), one))
    table = np.array(places, dtype=np.int64)
    return table[:, 0], table[:, 1]


_COSINES = _cosines()
_ROWS, _COLUMNS = _coarsest_first()
