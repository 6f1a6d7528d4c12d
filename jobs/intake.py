"""Taking prompts in, for a job or an extension: each row checked, counted and written down."""

import json
import time
from collections.abc import Callable, Iterable, Iterator

from jobs.errors import InvalidInput, TooLarge
from jobs.job import Rows
from jobs.layout import JobLayout
from jobs.recipe import Recipe
from jobs.row_checks import RowRecipes
from jobs.rows import Row
from jobs.seeds import repeat_seed
from jobs.sources.reading import Rejected, SourceRows
from jobs.spool import spool_rows, spool_template
from jobs.store import Store
from jobs.templates.expansion import Expansion
from jobs.templates.row_templates import MAX_EXPANDED as MAX_ROWS
from jobs.templates.row_templates import expanded
from jobs.templates.template import Template

#: Looks at a row and its place.
Note = Callable[[Row, str], None]
#: Rows of a template that are looked at for warnings.
LOOKED_AT = 1_000
#: Rows between two looks at the clock.
_LOOK = 100
#: A CLIP text encoder reads 77 tokens, two of them its own; a word is at least one.
CLIP_WORDS = 75


class RowTally:
    """Passes rows on, and notes what their submitter should be warned of or shown."""

    def __init__(
        self,
        rows: Iterable[Row],
        glimpse: range = range(0),
        template: Template | None = None,
        note: Note = lambda row, where: None,
    ) -> None:
        self._rows, self._glimpse, self._note = rows, glimpse, note
        #: What the source leaves out, once it was read.
        self.rejected = Rejected()
        #: What the rows are of, where they are too many to be passed on.
        self.template = template
        self.negative = 0
        self.long = 0
        self.shown: list[Row] = []
        #: Seconds that passing them on may take; None: any number.
        self.within_s: float | None = None

    def __iter__(self) -> Iterator[Row]:
        until = None if self.within_s is None else time.monotonic() + self.within_s
        for number, row in enumerate(self._rows):
            if until is not None and number % _LOOK == 0 and time.monotonic() > until:
                raise _too_long(number, self.within_s)
            if number >= MAX_ROWS:
                raise TooLarge(
                    f"more than {MAX_ROWS} rows",
                    where="prompts",
                    remedy="submit them in several jobs, or as a template, which writes no rows",
                )
            self._note(row, f"row {number + 1}")
            guided = row.recipe is not None and (row.recipe.guidance or 0) > 1
            self.negative += bool(row.negative_prompt) and not guided
            self.long += len(row.prompt.split()) > CLIP_WORDS
            if number in self._glimpse:
                self.shown.append(row)
            yield row


def _too_long(rows: int, within_s: float | None) -> TooLarge:
    return TooLarge(
        f"reading the prompts takes longer than {within_s:g} s: {rows} rows were read",
        where="prompts",
        remedy="submit them without a dry run: all of them are checked then too",
    )


def tally_of(
    expand: Expansion | None,
    rows: Iterable[Row] | Template,
    glimpse: range = range(0),
    note: Note = lambda row, where: None,
) -> RowTally:
    """The rows that become of a source; those numbered in `glimpse` are kept to show.

    A template's rows stay where they are: the first ones stand for all. `note` is told each row of
    any other source with its number. Raises InvalidInput.
    """
    if not isinstance(rows, Template):
        source = repeated(rows)
        tally = RowTally(
            source if expand is None else expanded(source, expand),
            glimpse,
            note=note,
        )
        if isinstance(rows, SourceRows):
            tally.rejected = rows.rejected
        return tally
    if expand is not None:
        raise InvalidInput(
            "a template says itself how it becomes rows", where="expand", remedy="leave it out"
        )
    prompts = rows.prompts
    tally = RowTally(prompts.rows(0, min(prompts.count, LOOKED_AT)), template=rows)
    for _ in tally:
        """Counted on the way."""
    tally.shown = [prompts.row(number) for number in glimpse if number < prompts.count]
    return tally


def repeated(rows: Iterable[Row]) -> Iterator[Row]:
    """Each row as often as it says; the seeds of its repeats as those of a job's."""
    for row in rows:
        if row.repeats == 1:
            yield row
            continue
        for repeat in range(row.repeats):
            seed = None if row.seed is None else repeat_seed(row.seed, repeat)
            yield row.model_copy(update={"repeats": 1, "seed": seed})


def write_rows(store: Store, tally: RowTally, recipes: RowRecipes, folder: str) -> Rows:
    """Write the rows under `folder`, which ends in a slash, and those that are left out beside.

    Raises what the rows raise; then somebody has to remove the folder.
    """
    if tally.template is not None:
        found = spool_template(store, tally.template, folder)
    else:
        found = spool_rows(store, iter(tally), folder)
    if tally.rejected.lines:
        lines = b"".join(tally.rejected.lines)
        store.put(JobLayout.rejected(folder), lines, content_type="application/jsonl")
    facts = {
        "rejected": len(tally.rejected.lines),
        "recipes": recipes.count,
        "cost": recipes.cost,
    }
    return found.model_copy(update=facts)


def row_warnings(recipe: Recipe, tally: RowTally, rows: Rows, images: int) -> Iterator[str]:
    """What the submitter of so many images of these rows should know."""
    if rows.recipes * recipe.batch_images > images and rows.recipes > 1:
        yield (
            f"rows have {rows.recipes} different settings: only images of the same one share a "
            f"batch of {recipe.batch_images}, and a batch that is not full takes as long; best are "
            "few settings, and rows sorted by them"
        )
    if tally.rejected.lines:
        first = json.loads(tally.rejected.lines[0])
        yield (
            f"{len(tally.rejected.lines)} rows cannot be rendered and are left out "
            f"(rejected_rows.jsonl); the first: {first['where']}: {first['error']}"
        )
    if tally.negative and not recipe.guided:
        yield (
            f"{tally.negative} rows have a negative prompt, which has no effect at guidance "
            f"{recipe.guidance:g}: it takes guidance above 1"
        )
    if tally.long:
        yield (
            f"{tally.long} prompts have more than {CLIP_WORDS} words: the text encoder reads 77 "
            "tokens; each image's tokens_lost says how many it could not"
        )
