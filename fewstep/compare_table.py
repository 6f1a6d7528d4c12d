"""A comparison's figures, as JSON for programs and as Markdown for people."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fewstep.compare_rows import Rendered
from workers.scores import FID_LEAST, Mean, Scorer, Scores


@dataclass(frozen=True)
class Line:
    """A row of the table: what was rendered, and what it scored."""

    rendered: Rendered
    scores: Scores

    @property
    def name(self) -> str:
        """As the plan has it."""
        return self.rendered.row.name

    @property
    def calls(self) -> int:
        """Calls of the UNet for a picture: two a step under guidance."""
        timing = self.rendered.timing
        return int(timing["steps"]) * int(timing["unet_calls_per_step"])

    @property
    def device_ms(self) -> float:
        """Milliseconds of a device for a picture: text, denoising, decoding, transfer."""
        timing = self.rendered.timing
        return float(timing["device_seconds"]) * 1e3 / max(1, int(timing["ok"]))

    @property
    def images_per_second(self) -> float | None:
        """From the first claim to the last commit, everything included."""
        found = self.rendered.timing["images_per_second"]
        return None if found is None else float(found)

    @property
    def memory_mib(self) -> float | None:
        """The most that a renderer held: of its GPU, or of its process on a CPU."""
        found = int(self.rendered.timing.get("memory_bytes", 0))
        return found / 2**20 if found else None


@dataclass(frozen=True)
class Comparison:
    """Everything that was measured, and with what."""

    facts: dict[str, str]
    scorer: Scorer
    lines: tuple[Line, ...]
    reference: int

    def agreement(self, line: Line) -> str:
        """A row's agreement with its prompts, in words."""
        show = percent if self.scorer.share else mean
        return show(line.scores.agreement)

    @property
    def notes(self) -> list[str]:
        """What a reader must know of the figures."""
        distance = "true pictures" if self.scorer.truth is not None else "the reference's pictures"
        few = [line for line in self.lines if line.scores.images < FID_LEAST]
        found = [
            f"FD: Frechet distance to {distance} in {self.scorer.features_title}."
            + (
                f" **Fewer than {FID_LEAST:,} pictures: compare rows, not with published figures.**"
                if few
                else ""
            ),
            f"Perceptual: mean distance to the picture of {self.lines[self.reference].name!r} with "
            "the same seed. ± is one standard error.",
            "ms: of a device, for a picture. Memory: the most that a renderer held, of its GPU, or "
            "of its whole process on a CPU.",
        ]
        return found + [f"Left out: {one}" for one in self.scorer.missing]

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            **self.facts,
            "reference": self.lines[self.reference].name,
            "agreement": self.scorer.agreement_title,
            "features": self.scorer.features_title,
            "missing": list(self.scorer.missing),
            "notes": self.notes,
            "rows": [_row(line) for line in self.lines],
        }


def markdown(found: Comparison) -> str:
    """The table, what it was measured with, and its notes."""
    details = sorted({name for line in found.lines for name in line.scores.details})
    head = [
        "",
        "UNet calls",
        "agreement",
        *(f"{name} %" for name in details),
        "FD",
        "perceptual",
        "ms",
        "images/s",
        "MiB",
    ]
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join('---' for _ in head)} |"]
    for line in found.lines:
        scores = line.scores
        cells = [
            line.name,
            str(line.calls),
            found.agreement(line),
            *(percent(scores.details.get(name)) for name in details),
            number(scores.frechet, 1),
            mean(scores.perceptual),
            number(line.device_ms, 1),
            number(line.images_per_second, 1),
            number(line.memory_mib, 0),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    facts = "; ".join(f"{name}: {value}" for name, value in found.facts.items())
    return "\n".join([*lines, "", f"{facts}.", "", *(f"- {one}" for one in _texts(found)), ""])


def _texts(found: Comparison) -> Sequence[str]:
    return [f"Agreement: {found.scorer.agreement_title}.", *found.notes]


def percent(found: Mean | None) -> str:
    """A share in per cent with its error; - where there is none."""
    return "-" if found is None else f"{found.mean * 100:.1f} ± {found.error * 100:.1f}"


def mean(found: Mean | None) -> str:
    """A mean with its error; - where there is none."""
    return "-" if found is None else f"{found.mean:.3f} ± {found.error:.3f}"


def number(found: float | None, digits: int) -> str:
    """A number; - where there is none."""
    return "-" if found is None else f"{found:.{digits}f}"


def _row(line: Line) -> dict[str, Any]:
    return {
        "name": line.name,
        "group": line.rendered.row.group,
        "recipe": line.rendered.recipe,
        "unet_calls": line.calls,
        **asdict(line.scores),
        "device_ms": line.device_ms,
        "images_per_second": line.images_per_second,
        "memory_mib": line.memory_mib,
        "timing": line.rendered.timing,
    }
