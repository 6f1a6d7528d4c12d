"""What a check of the doctor's found, and how a fault of ours becomes one."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from jobs.errors import FewstepError

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what it looked at, how that is, what was seen and what to do about it."""

    name: str
    level: Level
    text: str
    remedy: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Its fields, for JSON."""
        return asdict(self)


def fault(name: str, error: FewstepError) -> Finding:
    """The finding that an error of ours is."""
    text = f"{error.where}: {error.message}" if error.where else error.message
    return Finding(name, "fail", text, error.remedy or "")
