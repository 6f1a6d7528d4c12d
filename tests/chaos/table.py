"""The published table: what was struck how often, and what came of it."""

import json
import math
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests.chaos.fault import Fault, Result
from tests.chaos.one_site import LEASE_MS
from workers.shard_loop import IDLE_S

#: A renderer without work asks again after this long at most.
POLL_S = IDLE_S[1] * 1.2
#: What recovery may take.
BOUND_S = LEASE_MS / 1e3 + POLL_S


#: What should be 0 everywhere.
COUNTED = ("lost", "doubled", "wrong", "left_over", "otherwise")


@dataclass
class Entry:
    """One run as the results file keeps it."""

    row: str
    name: str
    redis: str
    store: str
    injected: int = 0
    recoveries: list[float] = field(default_factory=list)
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    left_over: int = 0
    #: 1 where the run did not end as its fault demands; `error` says how.
    otherwise: int = 0
    error: str = ""
    skipped: str = ""
    machine: str = ""
    day: str = ""
    #: The machine's load average of a minute, at the end; 0 where it was not noted.
    load: float = 0.0

    @classmethod
    def of(cls, result: Result) -> "Entry":
        """The entry of a run."""
        verdict = result.verdict
        said = result.error or "; ".join(verdict.otherwise)
        return cls(
            result.fault.row,
            result.fault.name,
            result.redis,
            result.store,
            result.injected,
            result.recoveries,
            len(verdict.lost),
            len(verdict.doubled),
            len(verdict.wrong),
            len(verdict.left_over),
            int(bool(said)),
            said[-400:],
            machine=machine(),
            day=datetime.now(UTC).date().isoformat(),
            load=round(os.getloadavg()[0], 1),
        )

    @property
    def clean(self) -> bool:
        """Whether everything was as wanted."""
        return not any(getattr(self, name) for name in COUNTED)


def machine() -> str:
    """Cores and kernel, for the table's head."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "CPU")
    return f"{os.cpu_count()} cores {model}, Linux {platform.release().split('-')[0]}"


def append(path: Path, entry: Entry) -> None:
    """Add a run to the results."""
    with path.open("a") as file:
        file.write(json.dumps(asdict(entry)) + "\n")


def read(path: Path) -> list[Entry]:
    """Every run in the results."""
    if not path.exists():
        return []
    return [Entry(**json.loads(line)) for line in path.read_text().splitlines()]


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def table(faults: Iterable[Fault], entries: Sequence[Entry]) -> str:
    """The whole document."""
    known = list(faults)
    ran = [entry for entry in entries if not entry.skipped]
    lines = [*_head(ran), *_HEADER]
    for fault in known:
        own = [one for one in entries if (one.row, one.name) == (fault.row, fault.name)]
        lines.append(_line(fault, own))
    lines += _below(known, entries)
    return "\n".join(lines) + "\n"


_HEADER = [
    "| row | fault | injected by | servers | runs | injected | lost | doubled | wrong | left over "
    "| otherwise | recovery p50 | p99 |",
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
]


def _head(ran: Sequence[Entry]) -> list[str]:
    total = {name: sum(getattr(one, name) for one in ran) for name in ("injected", *COUNTED)}
    days = sorted({one.day for one in ran})
    loads = sorted(one.load for one in ran if one.load)
    load = f" Load average, where noted: {loads[0]:.1f} to {loads[-1]:.1f}." if loads else ""
    return [
        "# Fault table",
        "",
        f"**{total['injected']} faults in {len(ran)} runs: {total['lost']} images lost, "
        f"{total['doubled']} doubled, {total['wrong']} wrong, {total['left_over']} things left "
        f"over; {total['otherwise']} runs ended otherwise than they should.** "
        "Written by `make chaos`; do not edit.",
        "",
        f"Machine: {', '.join(sorted({one.machine for one in ran}))}; no GPU, the tiny model. "
        f"Run: {' to '.join(days[:: max(1, len(days) - 1)])}.{load}",
        "",
        "Real Redis (6.2 embedded, 7.0 from Debian) and real S3 servers (moto honours conditional "
        "writes, rclone ignores them) behind proxies; renderers are processes that run the actor's "
        "shell without Ray. The rows at the end have Ray's own nodes and our scheduler around "
        "them, in namespaces of their own. Each run renders 48 pictures in 6 shards, with Ray 320 "
        "in 40. Afterwards every image must be in exactly one shard of the index, every tar, "
        "parquet file and manifest must agree by digest, every picture must have the bytes of an "
        "undisturbed run, and no lease, key, staged object, temporary file or process may be left. "
        "`wrong` counts pictures, files and records that say something else; `otherwise` counts "
        "runs that did not end as their fault demands.",
        "",
        "Recovery is the time from a death, or from the end of an outage, until every unit that "
        "was struck is another's or done, in seconds; 0.0 where work went on at once. The lease is "
        f"{LEASE_MS / 1e3:.0f} s here (60 s in production) and a renderer without work asks again "
        f"after {POLL_S:.1f} s at most: wanted is at most {BOUND_S:.1f} s.",
        "",
    ]


def _line(fault: Fault, entries: Sequence[Entry]) -> str:
    ran = [one for one in entries if not one.skipped]
    skipped = sorted({one.skipped for one in entries if one.skipped})
    if not ran:
        why = f"not run: {skipped[0]}" if skipped else "not run"
        return f"| {fault.row} | {fault.name} | {fault.how} | {why} |" + " |" * 9
    seconds = [value for one in ran for value in one.recoveries]
    p50, p99 = (f"{quantile(seconds, q):.1f}" if seconds else "" for q in (0.5, 0.99))
    mark = " *" if fault.note else ""
    servers = ", ".join(sorted({f"{one.redis} {one.store}" for one in ran}))
    counts = [sum(getattr(one, name) for one in ran) for name in ("injected", *COUNTED)]
    cells = [fault.row, fault.name, fault.how, servers, len(ran), *counts, p50 + mark, p99 + mark]
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _below(faults: Sequence[Fault], entries: Sequence[Entry]) -> list[str]:
    lines = [""]
    for note in dict.fromkeys(fault.note for fault in faults if fault.note):
        named = ", ".join(fault.name for fault in faults if fault.note == note)
        lines.append(f"\\* {named}: {note}.")
        lines.append("")
    lines += _over(faults, entries)
    bad = [one for one in entries if not one.clean]
    if bad:
        lines += ["Runs that were not clean:", ""]
        lines += [
            f"- {one.name} on {one.redis} {one.store}: "
            f"{one.error.strip().splitlines()[-1] if one.error else 'see the columns'}"
            for one in bad
        ]
        lines.append("")
    lines.append(
        "One row alone: `.venv/bin/python -m tests.chaos --only 4`. Randomised: `make soak`."
    )
    return lines


def _over(faults: Sequence[Fault], entries: Sequence[Entry]) -> list[str]:
    """Recoveries beyond what is wanted, where no note says why."""
    plain = {(fault.row, fault.name) for fault in faults if not fault.note}
    found = [
        f"{one.name} ({one.redis} {one.store}): {seconds:.2f} s"
        for one in entries
        for seconds in one.recoveries
        if (one.row, one.name) in plain and seconds > BOUND_S
    ]
    if not found:
        return []
    return [f"Longer than {BOUND_S:.1f} s, as on a busy machine: {'; '.join(found)}.", ""]
