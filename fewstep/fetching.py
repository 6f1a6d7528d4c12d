"""Datasets from the store into a folder, and the checks before anything is written there."""

import tempfile
from pathlib import Path

from fewstep.progress import byte_bar
from jobs.errors import InvalidInput
from jobs.fetch import Fetched, fetch_dataset
from jobs.job import JobView
from jobs.layout import SPLIT, JobLayout
from jobs.settings import Settings
from jobs.specs import dataset_id
from jobs.store import Store

_REMEDY = "choose another folder with --out"


def check_out(out: Path, *, job_id: str | None = None) -> None:
    """Make the folder and see that it can be written and holds nothing else.

    A folder with (a part of) the dataset of `job_id` may go on to be filled. Raises InvalidInput.
    """
    if out.exists() and not out.is_dir():
        raise InvalidInput("this is not a folder", where=str(out), remedy=_REMEDY)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
        names = {one.name for one in out.iterdir()}
    except OSError as error:
        raise InvalidInput(
            f"the folder cannot be written: {error.strerror}", where=str(out), remedy=_REMEDY
        ) from error
    if names and (job_id is None or not _belongs(out, job_id)):
        raise InvalidInput("the folder is not empty", where=str(out), remedy=_REMEDY)


def fetch_job(settings: Settings, view: JobView, out: Path) -> Fetched:
    """Copy the dataset of a job so that its files are at the root of `out`."""
    layout = JobLayout(prefix=settings.s3_prefix, tenant=view.tenant, job_id=dataset_id(view.id))
    store = Store.connect(settings)
    try:
        with byte_bar("fetching") as bar:
            return fetch_dataset(store, layout, out, bar)
    finally:
        store.close()


def count_cut_prompts(out: Path) -> int:
    """How many prompts of a fetched dataset lost tokens at the text encoder's limit."""
    from pyarrow import parquet

    cut: set[int] = set()
    for path in sorted((out / SPLIT).glob("*.parquet")):
        table = parquet.read_table(path, columns=["row", "tokens_lost"]).to_pydict()
        pairs = zip(table["row"], table["tokens_lost"], strict=True)
        cut |= {row for row, lost in pairs if lost}
    return len(cut)


def _belongs(out: Path, job_id: str) -> bool:
    """Whether what lies there is a dataset of that job's, complete or cut short."""
    try:
        return f'"{dataset_id(job_id)}"' in (out / "job.json").read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return False
