"""The card of an export: what is in it, what it was made of, how to load it."""

from collections.abc import Iterable, Mapping

from jobs.card import size_category
from jobs.card_form import plain, quoted, table, yaml_list
from jobs.card_recipe import recipe_facts
from jobs.exports.asked import Export, Form
from jobs.exports.samples import Fetched

GRID = "sample_grid.png"
_LOADING: dict[Form, str] = {
    "webdataset": """\
```python
from datasets import load_dataset

pictures = load_dataset("THIS_FOLDER", split="train")  # picture, caption and row
```

```python
from pathlib import Path

import webdataset

tars = [str(path) for path in sorted(Path("THIS_FOLDER/train").glob("*.tar"))]
for sample in webdataset.WebDataset(tars, shardshuffle=False).decode("pil"):
    sample["txt"], sample["json"]["seed"]
```

`train.json` is the split's index for `wids`.
""",
    "imagefolder": """\
```python
from datasets import load_dataset

pictures = load_dataset("THIS_FOLDER", split="train")  # image, text and the row's columns
```

Programs that take folders for labels (torchvision's `ImageFolder`) are given `THIS_FOLDER/train`.
""",
    "parquet": """\
```python
from datasets import load_dataset

pictures = load_dataset("THIS_FOLDER", split="train")  # image, text and the row's columns
```

```python
import pyarrow.dataset

rows = pyarrow.dataset.dataset("THIS_FOLDER/data").to_table(columns=["text", "seed"])
```
""",
}
_FILES: dict[Form, str] = {
    "webdataset": "{split}/*.tar",
    "imagefolder": "{split}/**",
    "parquet": "data/{split}-*.parquet",
}


def export_card(source: Fetched, asked: Export, pictures: Mapping[str, int]) -> str:
    """`README.md`: front matter that dataset loaders read, then text for people."""
    job = source.job
    title = plain(job.name) or f"fewstep job {job.id}"
    counts = ", ".join(f"{count} in {split}" for split, count in pictures.items())
    return "\n".join(
        [
            "---",
            *_front_matter(source, asked, title, pictures),
            "---",
            "",
            f"# {title}",
            "",
            f"{counts}: pictures of {source.rows} prompts, made by a few-step diffusion model.",
            f"An export ({asked.form}) of the fewstep job {job.id}. All pictures of one prompt are",
            "in one split.",
            "",
            f"![The first pictures]({GRID})",
            "",
            *table("How they were made", recipe_facts(job, (), source.settings)),
            *table(
                "Licences of the weights",
                [
                    (one.name, f"{one.licence}, commercial use {one.commercial}")
                    for one in job.recipe.licences
                ],
            ),
            "## Reading it",
            "",
            _LOADING[asked.form],
        ]
    )


def _front_matter(
    source: Fetched, asked: Export, title: str, pictures: Mapping[str, int]
) -> Iterable[str]:
    licences = sorted({one.licence for one in source.job.recipe.licences})
    yield f"pretty_name: {quoted(title)}"
    yield from yaml_list("license", licences or ["unknown"])
    yield from yaml_list("task_categories", ["text-to-image"])
    yield from yaml_list("tags", ["synthetic", "text-to-image", asked.form, "fewstep"])
    yield from yaml_list("size_categories", [size_category(sum(pictures.values()))])
    yield "configs:"
    yield "- config_name: default"
    yield "  data_files:"
    for split, count in pictures.items():
        if count:
            yield f"  - split: {split}"
            yield f"    path: {quoted(_FILES[asked.form].format(split=split))}"
