"""The error budget of a job: how many of its images may fail before it is stopped."""

#: A job that says nothing of failures is not stopped before so many.
FAILED_FLOOR = 1_000


def share_of(asked: float | None, *, turns_away: bool) -> float | None:
    """The share of images that may fail; None: a number of them.

    What filters turn away counts as failed, and is no reason to stop.
    """
    if asked is None:
        return 1.0 if turns_away else 0.5
    return asked if isinstance(asked, float) else None


def limit_of(asked: float | None, images: int, *, turns_away: bool) -> int:
    """How many of so many images may fail."""
    share = share_of(asked, turns_away=turns_away)
    if share is None:
        return int(asked or 0)
    # 0.29 x 100 is 28.999... in floating point.
    most = int(share * images + 1e-9)
    return max(FAILED_FLOOR, most) if asked is None and not turns_away else most


def raised(accepted: int | None, share: float | None, images: int) -> int | None:
    """How many may fail once so many images are let through; None: any number.

    `accepted`: as many as might when the job was accepted, with fewer images.
    """
    if share is None or accepted is None:
        return accepted
    return max(accepted, int(share * images + 1e-9))
