"""The seed of every image, fixed at submission: a pure function of job seed, row and repeat."""

import hashlib

#: Seeds are unsigned 32-bit: a CPU generator silently uses the low 32 bits of a wider one.
MAX_SEED = 2**32 - 1


def image_seed(job_seed: int, row: int, repeat: int) -> int:
    """The seed of (row, repeat) in `[0, 2**32)`: the first 4 bytes of a BLAKE2b hash."""
    text = f"fewstep-seed:{job_seed}:{row}:{repeat}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")


def later_seed(job_seed: int, row: int, repeat: int, number: int) -> int:
    """Seed `number` (1, 2, ...) of an image that filters had tried again, its first being 0.

    Of the row's place too where the row brings its own seed: two rows of one seed and one prompt
    part ways here.
    """
    text = f"fewstep-try:{job_seed}:{row}:{repeat}:{number}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")


def repeat_seed(row_seed: int, repeat: int) -> int:
    """The seed of a repeat of a row that brings its own: repeat 0 is exactly that seed."""
    return row_seed if repeat == 0 else image_seed(row_seed, 0, repeat)
