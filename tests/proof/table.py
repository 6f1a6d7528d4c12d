"""docs/dataset-proof.md: what was done, what was found, what was learned."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from benchmarks.machine import describe, sentence
from tests.proof.reading import Found

PAGE = """# A dataset through every verb and fault

`make proof` submits a balanced template of {rows:,} rows with two filters (a picture that does not
show all that its prompt names is tried again with the next seed, four at most; of pictures with
equal perceptual hashes one stays), kills every process that begins a unit with one of two rows, and
freezes the object store for {frozen:g} s. Then it extends the dataset by as many pictures, and
tries again what failed. After each step the dataset is fetched into one folder and read file by
file by `tests/proof/reading.py`, which has no line of the product: index, rows, tar members and
digests must agree exactly. A white shape on white, or a black one on black, cannot be seen: such
rows, one in 28, are to be turned away.

Run on: {machine}.

| after | images | shards | pictures | turned away | resemble others | lost with a process | files that disagree | seconds |
|---|---|---|---|---|---|---|---|---|
{steps}

Processes killed: {killed}; all images of a row that killed are rendered by the last step. By the
tiny model's judge {right:.1%} of the pictures show all that their prompt names.

## Learned from it

The example trains a small net on this dataset alone, and tries it on a tenth that it held back and
on pictures that no model made
(`python examples/train_classifier.py DATASET --label shape --label colour --true-pictures 4000`):

```
{learned}
```
"""  # noqa: E501 - a table's row is one line


def write_table(
    path: Path,
    rows: int,
    killed: int,
    frozen: float,
    steps: Mapping[str, tuple[Found, float]],
    learned: str,
    right: float,
) -> None:
    """Write the page anew."""
    page = PAGE.format(
        rows=rows,
        machine=sentence(describe()),
        steps="\n".join(_line(name, found, took) for name, (found, took) in steps.items()),
        killed=killed,
        frozen=frozen,
        right=right,
        learned=learned.strip(),
    )
    path.write_text(page, "utf-8")


def _line(name: str, found: Found, took: float) -> str:
    reasons = Counter(found.missing.values())
    turned_away, resembling = (
        reasons.pop(f"rejected:{name}", 0) for name in ("prompt_agreement", "near_duplicate")
    )
    cells = (
        name,
        f"{found.images:,}",
        found.shards,
        f"{len(found.pictures):,}",
        f"{turned_away:,}",
        f"{resembling:,}",
        f"{reasons.total():,}",
        len(found.wrong),
        f"{took:.0f}",
    )
    return f"| {' | '.join(map(str, cells))} |"
