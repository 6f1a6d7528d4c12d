"""The dataset card: what a dataset holds, how it was made, and how to read it."""

from collections.abc import Container, Iterable, Mapping, Sequence

import pyarrow as pa

from jobs.card_form import plain, quoted, table, yaml_list
from jobs.card_labels import label_facts
from jobs.card_recipe import recipe_facts
from jobs.dataset_index import DatasetIndex
from jobs.job import Job
from jobs.layout import SPLIT
from jobs.manifest import Manifest
from jobs.shard_row import json_schema
from jobs.timing import Timing

_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"))
_MORE_SIZES = ((10**7, "1M<n<10M"), (10**8, "10M<n<100M"), (10**9, "100M<n<1B"))
_NAMES = {pa.string(): "string", pa.int64(): "int64", pa.float64(): "float64", pa.bool_(): "bool"}

_READING = """\
## Reading it

```python
from datasets import load_dataset

pictures = load_dataset("THIS_FOLDER", split="train")  # {what}

# The rows alone, those of failed images too.
rows = load_dataset("parquet", data_files="THIS_FOLDER/train/*.parquet", split="train")
```

```python
from pathlib import Path

import webdataset

tars = [str(path) for path in sorted(Path("THIS_FOLDER/train").glob("*.tar"))]
for sample in webdataset.WebDataset(tars, shardshuffle=False).decode("pil"):
    sample["{extension}"], sample["txt"], sample["json"]["seed"]
```

```python
from pathlib import Path

import pyarrow.dataset

tables = sorted(Path("THIS_FOLDER/train").glob("*.parquet"))
rows = pyarrow.dataset.dataset([str(path) for path in tables]).totable()
```

`index.json` lists the shards with their digests; `timing.json` says where the time went. A tar's
`.json` member is the whole row of its picture: prompt, seed and recipe make it again.
"""


#: What `load_dataset` gives of the tars, and of another form.
_WHAT = ("picture, caption and row", "image, text and the row's columns")


def dataset_card(
    job: Job,
    index: DatasetIndex,
    timing: Timing,
    manifests: Sequence[Manifest],
    licences: Mapping[str, str],
    ended: str = "",
    added: Container[int] = (),
    splits: Sequence[str] = (),
) -> str:
    """`README.md`: front matter that dataset loaders read, then text for people.

    `ended`: why the job ended before all its images were accounted for. `added`: the rounds that
    are extensions. `splits`: those of the form that the job wants beside its tars.
    """
    title = plain(job.name) or f"fewstep job {job.id}"
    extension = "jpg" if job.format == "jpeg" else job.format
    return "\n".join(
        [
            "---",
            *_front_matter(job, title, extension, index, licences, splits),
            "---",
            "",
            f"# {title}",
            "",
            f"{index.ok} pictures of {job.rows.count} prompts ({job.repeats} each), made by a",
            f"few-step diffusion model in {len(index.shards)} shards.",
            *_shortcomings(job, index, ended, added),
            *_left_out(job, index),
            "",
            "![The first pictures](previews/contact_sheet.png)",
            "",
            *table("How they were made", recipe_facts(job, manifests, timing.settings)),
            *table("Pictures by label", label_facts(manifests)),
            *table("Licences of the weights", _licence_facts(job, licences)),
            *table("Time", _timing_facts(timing)),
            _READING.format(extension=extension, what=_WHAT[bool(splits)]),
        ]
    )


def _shortcomings(
    job: Job, index: DatasetIndex, ended: str, added: Container[int]
) -> Iterable[str]:
    more = [shard for shard in index.shards if shard.round in added]
    if more:
        made = sum(shard.ok for shard in more)
        yield f"{made} of the pictures were added by an extension, in shards from {more[0].name}"
        yield "on."
    later = [shard for shard in index.shards if shard.round and shard.round not in added]
    if later:
        made = sum(shard.ok for shard in later)
        yield f"{made} of the pictures were made when what had failed was tried again, in shards"
        yield f"from {later[0].name} on."
    if index.rows_short:
        yield f"\n{index.rows_short} of {job.rows.count} prompts have fewer than {job.accept}"
        yield "accepted pictures."
    if index.duplicates:
        yield f"\n{index.duplicates} pictures resemble an earlier one:"
        yield "`duplicates.parquet` lists them."
    if index.rejects:
        told = ", ".join(f"{count} for {name}" for name, count in index.rejects.items())
        yield f"\nPictures that were turned away: {told}. Where no later seed made up for one, it"
        yield "is in `quarantine/`, in a tar."
    if index.failed:
        yield f"\n{index.failed} images could not be made: `quarantine/` has a row for each, with"
        yield "error, traceback and number of tries. `fewstep retry-failed` tries them again."
    if ended:
        left = index.images - index.ok - index.failed - index.dropped
        yield f"\n**Not complete.** {left} of {index.images} images were not rendered: {ended}"


def _left_out(job: Job, index: DatasetIndex) -> Iterable[str]:
    if index.dropped:
        yield f"\n{index.dropped} images were taken out since (`fewstep drop`): no shard has them."
    if job.rows.rejected:
        yield f"\n{job.rows.rejected} rows of the source could not be rendered and were left out:"
        yield "`rejected_rows.jsonl` says which, and why."


def _front_matter(
    job: Job,
    title: str,
    extension: str,
    index: DatasetIndex,
    licences: Mapping[str, str],
    splits: Sequence[str],
) -> list[str]:
    return [
        f"pretty_name: {quoted(title)}",
        *yaml_list("license", sorted(set(licences.values())) or ["unknown"]),
        *yaml_list("task_categories", ["text-to-image"]),
        *yaml_list("tags", ["synthetic", "text-to-image", "webdataset", *_form(job), "fewstep"]),
        *yaml_list("size_categories", [size_category(index.ok)]),
        "configs:",
        "- config_name: default",
        "  data_files:",
        *(_form_paths(job, splits) if splits else _tar_paths(job, extension)),
    ]


def _form(job: Job) -> list[str]:
    return [job.output] if job.output in ("imagefolder", "parquet") else []


def _tar_paths(job: Job, extension: str) -> Iterable[str]:
    yield f"  - split: {SPLIT}"
    yield f"    path: {quoted(f'{SPLIT}/*.tar')}"
    yield from ("dataset_info:", "- config_name: default", "  features:")
    yield from _features(job, extension)


def _form_paths(job: Job, splits: Sequence[str]) -> Iterable[str]:
    """Tables tell their own features, and folders the kinds of their rows' values."""
    path = "data/{}-*.parquet" if job.output == "parquet" else "imagefolder/{}/**"
    for split in splits:
        yield f"  - split: {split}"
        yield f"    path: {quoted(path.format(split))}"


def _features(job: Job, extension: str) -> list[str]:
    """Types of the tars' members: a loader that guesses looks at five samples only."""
    lines = []
    for name, kind in ((extension, "image"), ("txt", "string")):
        lines += [f"  - name: {name}", f"    dtype: {kind}"]
    lines += ["  - name: json", "    struct:"]
    for field in json_schema(job.columns):
        kind = field.type
        lines.append(f"    - name: {field.name}")
        if pa.types.is_list(kind):
            lines.append(f"      list: {_NAMES[kind.value_type]}")
        else:
            lines.append(f"      dtype: {_NAMES[kind]}")
    for name in ("__key__", "__url__"):
        lines += [f"  - name: {name}", "    dtype: string"]
    return lines


def _licence_facts(job: Job, licences: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """Those that the job was accepted under; of a job that tells none, the catalog's."""
    told = [
        (one.name, f"{one.licence}, commercial use {one.commercial}") for one in job.recipe.licences
    ]
    return told or sorted(licences.items())


def _timing_facts(timing: Timing) -> Iterable[tuple[str, str]]:
    yield "finished", timing.finished
    yield "wall clock", f"{timing.wall_s:.1f} s"
    if timing.images_per_second is not None:
        yield "pictures per second", f"{timing.images_per_second:g}"
    yield "device time", f"{timing.device_seconds:.1f} s"
    yield "renderers", str(len(timing.renderers))
    if timing.bottleneck is not None:
        yield "held up by", timing.bottleneck.says


def size_category(pictures: int) -> str:
    """The Hub's word for so many pictures."""
    for bound, name in _SIZES + _MORE_SIZES:
        if pictures < bound:
            return name
    return "n>1T" if pictures >= 10**12 else "1B<n<10B"
