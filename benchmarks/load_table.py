"""What `make load` found, as a table for people and as JSON."""

import json
from pathlib import Path
from typing import Any

from benchmarks.machine import describe

#: What was wanted: the peak of the API during the upload, and growth from one half to the next.
UPLOAD_MB, GROWTH = 300, 1.05


def report(sizes: dict[str, int], sent: dict[str, Any], found: dict[str, Any], out: Path) -> int:
    """Print and write it; 1 where anything erred, a half grew, or the upload took too much."""
    first, second = found["halves"]
    growth = round(second["api_mb"] / first["api_mb"], 3)
    errors = [*sent["errors"], *first["errors"], *second["errors"]]
    reached = {
        "no error": not errors,
        "memory flat": growth <= GROWTH,
        "upload memory": sent["api_peak_mb"] < UPLOAD_MB,
    }
    machine = describe()
    facts = {
        "machine": machine,
        "sizes": sizes,
        "upload": sent,
        **found,
        "growth": growth,
        "reached": reached,
    }
    out.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    print(f"{machine['cpu']}, {machine['cores']} cores; load now {machine['load']}")
    for name, value in _lines(sent, first, second, growth):
        print(f"{name:<46} {value}")
    for name, good in reached.items():
        print(f"{name:<46} {'yes' if good else 'NO'}")
    for error in errors[:10]:
        print(error)
    return 0 if all(reached.values()) else 1


def _lines(
    sent: dict[str, Any], first: dict[str, Any], second: dict[str, Any], growth: float
) -> list[tuple[str, str]]:
    lines = [
        (f"upload of {sent['images']} rows, {sent['file_mb']} MB", f"{sent['seconds']} s"),
        ("  the API's memory before, and at most", _pair(sent, "api_before_mb")),
        ("  GET /jobs/{id} meanwhile, p50, p99, max", _times(sent["get_job"])),
    ]
    for name, half in (("first half", first), ("second half", second)):
        seen = half["clients"]
        lines += [
            (f"{name}: jobs submitted", f"{seen['submitted']} in {seen['seconds']} s"),
            ("  streams open at once, that told a view", _streams(seen)),
            ("  GET /jobs/{id}, p50, p99, max", _times(half["get_job"])),
            ("  the API's memory after, and at most", _pair(half, "api_mb")),
        ]
    return [*lines, ("growth from half to half", f"{growth}x")]


def _pair(facts: dict[str, Any], name: str) -> str:
    return f"{facts[name]}, {facts['api_peak_mb']} MB"


def _streams(seen: dict[str, Any]) -> str:
    return f"{seen['streams_at_once']}, {seen['streams_told']}"


def _times(figures: dict[str, float]) -> str:
    return ", ".join(f"{figures[name]}" for name in ("p50_ms", "p99_ms", "max_ms")) + " ms"
