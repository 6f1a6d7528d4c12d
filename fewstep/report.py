"""What people see: tables on standard output, notes on standard error; and JSON for programs."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape as escape_markup
from rich.table import Table

from fewstep.findings import Finding
from jobs.job import DryRun, JobView
from jobs.keys import ApiKey

_PIPE_WIDTH = 200
_MARKS = {"ok": "[green]ok[/]", "warn": "[yellow]warn[/]", "fail": "[red]fail[/]"}


def escape(text: str) -> str:
    """Anybody's text as it may stand in a terminal: no markup, nothing that a terminal acts on."""
    shown = (one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)
    return escape_markup("".join(shown))


def note(text: str) -> None:
    """A line about what is being done, on standard error."""
    print(text, file=sys.stderr, flush=True)


def as_json(value: Mapping[str, Any]) -> None:
    """The one object on standard output."""
    print(printed(value))


def printed(value: Mapping[str, Any]) -> str:
    """The object as JSON that people can read too."""
    return json.dumps(value, ensure_ascii=False, indent=1, default=str)


def show_pairs(title: str, pairs: Mapping[str, object]) -> None:
    """Names and values under a title."""
    table = Table(
        title=escape(title), title_justify="left", show_header=False, box=None, pad_edge=False
    )
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs.items():
        table.add_row(name, escape(str(value)))
    _console().print(table)


def show_table(columns: "Sequence[str]", rows: "Sequence[Sequence[str]]") -> None:
    """A line per row under the columns' names."""
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    _console().print(table)


def show_jobs(views: "Sequence[JobView]") -> None:
    """A line per job."""
    table = Table(box=None, pad_edge=False)
    for name in ("id", "name", "state", "images", "done", "failed", "images/s", "submitted"):
        table.add_column(name, no_wrap=name != "name", min_width=26 if name == "id" else None)
    for view in views:
        rate = f"{view.images_per_second:.1f}" if view.images_per_second else ""
        counts = (str(view.images), str(view.done), str(view.failed))
        table.add_row(
            view.id, escape(view.name), view.state, *counts, rate, clock(view.submitted_ms)
        )
    _console().print(table)


def show_failed(images: "Sequence[Mapping[str, Any]]") -> None:
    """A line per image without a picture."""
    table = Table(box=None, pad_edge=False)
    for name in ("image", "row", "seed", "tries", "kind", "error", "prompt"):
        table.add_column(name, no_wrap=name not in ("error", "prompt"))
    for one in images:
        numbers = (str(one[name]) for name in ("image", "row", "seed", "attempts"))
        words = (escape(str(one[name])[:200]) for name in ("error", "prompt"))
        table.add_row(*numbers, one["error_kind"], *words)
    _console().print(table if images else "no image failed")


def show_keys(keys: "Sequence[ApiKey]") -> None:
    """A line per key, without what opens anything."""
    table = Table(box=None, pad_edge=False)
    for name in ("id", "tenant", "name", "scopes", "requests/min", "made", "state"):
        table.add_column(name, no_wrap=name != "name")
    now = time.time() * 1000
    for key in keys:
        state = "lives" if key.lives(round(now)) else "revoked" if key.revoked_ms else "run out"
        scopes, rate = " ".join(key.scopes), str(key.requests_a_minute)
        table.add_row(
            key.id, key.tenant, escape(key.name), scopes, rate, clock(key.created_ms), state
        )
    _console().print(table)


def show_job(view: JobView, held_up: str = "") -> None:
    """All of one job, and what held it up where that is known."""
    state = f"{view.state} ({view.reason})" if view.reason else view.state
    recipe = view.recipe
    pairs: dict[str, object] = {
        "name": view.name or "-",
        "state": state,
        "images": f"{view.done} of {view.images} done, {view.failed} failed{_of_limit(view)}",
        "shards": f"{view.shards}, {view.shards_running} running",
        "priority": view.priority,
        **_budget(view),
        "submitted": clock(view.submitted_ms),
        "images/s": f"{view.images_per_second:.2f}" if view.images_per_second else "-",
        "recipe": ", ".join(
            f"{name} {recipe[name]}"
            for name in ("model", "sampler", "steps", "guidance", "width", "height")
            if name in recipe
        ),
        "lies at": view.prefix,
    }
    if view.retry:
        pairs["retried as"] = view.retry
    if held_up:
        pairs["held up by"] = held_up
    for number, warning in enumerate(view.warnings, start=1):
        pairs[f"note {number}"] = warning
    show_pairs(view.id, pairs)


def _budget(view: JobView) -> dict[str, object]:
    """The limits that there are, and what of the device's is spent."""
    limits = {
        name: value
        for name, value in view.budget.model_dump(mode="json").items()
        if value is not None
    }
    if not limits:
        return {}
    told = ", ".join(f"{name} {value}" for name, value in limits.items())
    used = (
        "" if view.device_seconds is None else f" ({view.device_seconds:.1f} device-seconds spent)"
    )
    return {"budget": told + used}


def _of_limit(view: JobView) -> str:
    limited = view.max_failed_rows is not None and view.max_failed_rows < view.images
    return f" (stops beyond {view.max_failed_rows})" if limited else ""


def show_status(facts: Mapping[str, Any]) -> None:
    """Components, renderers and backlog."""
    for part in facts["components"]:
        how = "given" if not part["embedded"] else f"pid {part['pid']}"
        word = _MARKS["ok"] if part["alive"] else "[red]dead[/]"
        _console().print(f"{part['name']:<10} {word}  {how}", highlight=False)
    if not facts["components"]:
        _console().print(f"no local stack is up in {facts['home']}", highlight=False)
    if facts["problem"]:
        _console().print(f"[red]{escape(facts['problem'])}[/]", highlight=False)
    cluster = facts["cluster"]
    if cluster is not None:
        age = cluster["scheduler_age_ms"]
        show_pairs(
            facts["url"],
            {
                "scheduler seen": "never" if age is None else f"{age / 1000:.1f} s ago",
                "renderers": len(cluster["renderers"]),
                "images waiting": sum(one["images_waiting"] for one in cluster["backlog"]),
            },
        )
    if any(not part["alive"] for part in facts["components"]):
        note("`fewstep up` starts what is missing")


def show_estimate(found: DryRun) -> None:
    """What a job would be, and what it would cost where that is known."""
    guess = found.estimate
    costs = {"device seconds": guess.device_seconds, "seconds": guess.seconds, "price": guess.price}
    pairs: dict[str, object] = {"images": found.images, "shards": found.shards}
    pairs |= {"where": guess.where, "measured on": f"{guess.measured_images} images"}
    pairs |= {name: "not known" if cost is None else cost for name, cost in costs.items()}
    notes = enumerate(found.warnings, start=1)
    show_pairs("A dry run", pairs | {f"note {number}": text for number, text in notes})


def show_findings(findings: "Sequence[Finding]") -> None:
    """A line per check, with its remedy where one is needed."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    for finding in findings:
        remedy = f" [dim]-> {escape(finding.remedy)}[/]" if finding.remedy else ""
        table.add_row(_MARKS[finding.level], finding.name, escape(finding.text) + remedy)
    _console().print(table)


def show_render(facts: Mapping[str, Any]) -> None:
    """What a rendering made, how fast, and where its time went."""
    rate = facts["images_per_second"]
    pairs: dict[str, object] = {
        "images": facts["images"],
        "failed": facts["failed"],
        "images/s": f"{rate:.2f}" if rate else "-",
    }
    if facts["tokens_lost"]:
        pairs["prompts cut"] = f"{facts['tokens_lost']} were longer than the text encoder reads"
    show_pairs("Rendered", pairs | {"files": facts["out"]})
    show_times(facts["stages"], facts.get("bottleneck"))


def show_times(stages: Mapping[str, Any], bottleneck: Mapping[str, Any] | None) -> None:
    """A line per stage, and what held the job up."""
    table = Table(title="Time by stage", title_justify="left", box=None, pad_edge=False)
    for name in ("stage", "sum s", "p50 ms", "p95 ms"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for stage, times in stages.items():
        table.add_row(stage, *_times(times))
    if stages:
        _console().print(table)
    if bottleneck:
        _console().print(bottleneck["says"], markup=False, highlight=False)


def _times(times: object) -> tuple[str, str, str]:
    """Sum, median and 95th percentile of a stage, from milliseconds."""
    if not isinstance(times, Mapping):
        times = {"sum_ms": times}
    return (
        _number(times.get("sum_ms"), 1000, 2),
        _number(times.get("p50_ms"), 1, 1),
        _number(times.get("p95_ms"), 1, 1),
    )


def _number(value: object, unit: int, digits: int) -> str:
    return f"{value / unit:.{digits}f}" if isinstance(value, int | float) else "-"


def clock(ms: int) -> str:
    """A moment as people here read it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ms / 1000))


def _console() -> Console:
    # Made anew, because standard output may have been exchanged (pagers, tests). Lines that go
    # into a file or a pipe are not cut at the width of a screen that is not there.
    return Console() if sys.stdout.isatty() else Console(width=_PIPE_WIDTH)
