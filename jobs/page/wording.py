"""Numbers and times as people read them: the filters of the page's templates."""

import math
import time
from datetime import UTC, datetime

_STEPS = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s"))
_SIZES = ("B", "KB", "MB", "GB", "TB")


def count(number: float) -> str:
    """`12,345`."""
    return f"{number:,.0f}"


def rate(per_second: float | None) -> str:
    """Images a second, with as many digits as say something; a slow one by the minute."""
    if per_second is None:
        return "–"
    if per_second < 0.1:
        return f"{per_second * 60:.2g} images/min"
    digits = 0 if per_second >= 100 else 1 if per_second >= 10 else 2
    return f"{per_second:.{digits}f} images/s"


def duration(seconds: float | None) -> str:
    """`3.2 s`, `4 min 5 s`, `2 h 10 min`, `3 d 4 h`."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for large, name, small, rest in _STEPS:
        if whole >= large:
            first, second = divmod(whole, large)
            tail = second // small
            return f"{first} {name} {tail} {rest}" if tail else f"{first} {name}"
    return f"{whole} s"


def milliseconds(value: float | None) -> str:
    """`0.42 ms`, `42 ms`, `1.3 s`."""
    if value is None:
        return "–"
    if value >= 1_000:
        return duration(value / 1_000)
    if 0 < value < 0.01:
        return "< 0.01 ms"
    return f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms"


def size(number: float) -> str:
    """`1.4 MB`."""
    if number < 1_000:
        return f"{number:.0f} B"
    power = min(len(_SIZES) - 1, int(math.log(number, 1_000)))
    return f"{number / 1_000**power:.3g} {_SIZES[power]}"


def ago(moment_ms: float | None) -> str:
    """`5 s ago`; `just now` for what is less than two seconds old or still to come."""
    if moment_ms is None:
        return "–"
    seconds = time.time() - moment_ms / 1_000
    if seconds < 2:
        return "just now"
    return f"{math.floor(seconds)} s ago" if seconds < 60 else f"{duration(seconds)} ago"


def iso(moment_ms: float) -> str:
    """For `<time datetime>`."""
    return datetime.fromtimestamp(moment_ms / 1_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def clock(moment_ms: float | None) -> str:
    """`24 Nov 2026, 10:12 UTC`."""
    if moment_ms is None:
        return "–"
    return datetime.fromtimestamp(moment_ms / 1_000, UTC).strftime("%-d %b %Y, %H:%M UTC")


def percent(share: float | None) -> str:
    """`42 %`; no 100 before all is done, and no 0 once something is."""
    if share is None:
        return "–"
    if 0 < share < 1:
        share = min(0.99, max(0.01, share))
    return f"{share:.0%}".replace("%", " %")


FILTERS = {
    "count": count,
    "rate": rate,
    "duration": duration,
    "milliseconds": milliseconds,
    "size": size,
    "ago": ago,
    "iso": iso,
    "clock": clock,
    "percent": percent,
}
