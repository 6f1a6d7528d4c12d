"""One image's row as the dataset tells it: the same names and values in tar and parquet."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from jobs.job import ColumnKind, Job
from jobs.layout import JobLayout, Unit
from jobs.recipe import Recipe
from jobs.records import ImageRecord, Maker
from jobs.row_recipe import recipe_for
from jobs.rows import Scalar

#: Column -> value, ready for JSON.
ShardRow = dict[str, Any]

STAGES = ("text_ms", "denoise_ms", "decode_ms", "transfer_ms", "encode_ms")

_TEXT, _INT, _FLOAT = pa.string(), pa.int64(), pa.float64()
_KINDS: dict[ColumnKind, Any] = {
    "bool": pa.bool_(),
    "int": _INT,
    "float": _FLOAT,
    "string": _TEXT,
}
#: Our columns in the order in which they stand in the parquet file.
_COLUMNS: dict[str, Any] = {
    "key": _TEXT,
    "image": _INT,
    "row": _INT,
    "repeat": _INT,
    "prompt": _TEXT,
    "negative_prompt": _TEXT,
    "seed": _INT,
    "status": _TEXT,
    "error": _TEXT,
    "error_kind": _TEXT,
    "traceback": _TEXT,
    "file_name": _TEXT,
    "shard": _TEXT,
    "sha256": _TEXT,
    "bytes": _INT,
    "format": _TEXT,
    "quality": _INT,
    "width": _INT,
    "height": _INT,
    "model": _TEXT,
    "model_family": _TEXT,
    "model_source": _TEXT,
    "model_revision": _TEXT,
    "model_sha256": _TEXT,
    "accelerator": _TEXT,
    "accelerator_source": _TEXT,
    "accelerator_revision": _TEXT,
    "accelerator_sha256": _TEXT,
    "accelerator_weight": _FLOAT,
    "styles": pa.list_(_TEXT),
    "sampler": _TEXT,
    "sampler_settings": _TEXT,
    "steps": _INT,
    "guidance": _FLOAT,
    "dtype": _TEXT,
    "engine_key": _TEXT,
    "unet_calls": _INT,
    "tokens_lost": _INT,
    "attempt": _INT,
    "batch_images": _INT,
    "batch_position": _INT,
    **dict.fromkeys(STAGES, _FLOAT),
    "upload_ms": _FLOAT,
    "worker": _TEXT,
    "device": _TEXT,
    "torch": _TEXT,
    "diffusers": _TEXT,
    "compiled": _TEXT,
    "fewstep": _TEXT,
    "created": pa.timestamp("ms", tz="UTC"),
}
#: Unknown until the tar is written, so in the parquet file only, and null for an adopted tar.
_LATER = "upload_ms"

#: Columns that only the quarantine's files have.
QUARANTINE_ONLY = frozenset({"attempts", "unit"})
#: Names that a prompt source may not use for columns of its own.
RESERVED_COLUMNS = frozenset(_COLUMNS) | QUARANTINE_ONLY


def schema_of(columns: Mapping[str, ColumnKind]) -> pa.Schema:
    """The parquet schema: our columns, then the job's (`Job.columns`), which may be null."""
    ours = [pa.field(name, kind, nullable=name == _LATER) for name, kind in _COLUMNS.items()]
    return pa.schema(ours + [pa.field(name, _KINDS[kind]) for name, kind in columns.items()])


def json_schema(columns: Mapping[str, ColumnKind]) -> pa.Schema:
    """The columns of a tar's JSON members, `created` as ISO 8601 text."""
    fields = [field for field in schema_of(columns) if field.name != _LATER]
    return pa.schema(
        [pa.field(one.name, _TEXT) if one.name == "created" else one for one in fields]
    )


def shard_row(
    job: Job, layout: JobLayout, unit: Unit, record: ImageRecord, maker: Maker
) -> ShardRow:
    """The row of one image: its record, its recipe and its maker, all that JSON can hold.

    `upload_ms` is left out: nobody knows it before the tar is written.
    """
    row: ShardRow = record.model_dump(
        exclude={"times", "extra", "filtered", "created_ms", "recipe"}
    )
    row |= {
        # The name that it has in the quarantine is none in the dataset.
        "file_name": record.file_name if record.status == "ok" else "",
        "shard": layout.stem(unit),
        "format": job.format,
        "quality": job.quality,
        "batch_images": record.batch_images or job.recipe.batch_images,
        "created": _iso(record.created_ms),
        **record.times.model_dump(),
        **maker.model_dump(mode="json"),
        **_recipe_columns(recipe_for(job.recipe, record.recipe)),
    }
    ours = {name: row[name] for name in _COLUMNS if name != _LATER}
    return ours | own_columns({**record.filtered, **record.extra}, job.columns)


def json_row_of(row: ShardRow) -> ShardRow:
    """The row as the tar's JSON tells it, from a row of the parquet file."""
    created = {"created": _iso(round(row["created"].timestamp() * 1000))}
    ours = {name: row[name] for name in _COLUMNS if name != _LATER} | created
    # The filters' and the prompt source's own columns are absent where they are null.
    return ours | {
        name: row[name]
        for name in row
        if name not in ours and name != _LATER and row[name] is not None
    }


def own_columns(
    extra: Mapping[str, Scalar], columns: Mapping[str, ColumnKind]
) -> dict[str, Scalar]:
    """The job's own columns, each value as the column's kind; absent where null."""
    return {
        name: _as_kind(value, kind)
        for name, kind in columns.items()
        if (value := extra.get(name)) is not None
    }


def _as_kind(value: Scalar, kind: ColumnKind) -> Scalar:
    if kind == "float" and isinstance(value, int):
        return float(value)
    if kind == "string" and not isinstance(value, str):
        return json.dumps(value)
    return value


def _recipe_columns(recipe: Recipe) -> ShardRow:
    adapter = recipe.accelerator
    weights = adapter.weights if adapter else None
    return {
        "width": recipe.width,
        "height": recipe.height,
        "model": recipe.model,
        "model_family": recipe.family,
        "model_source": recipe.base.source,
        "model_revision": recipe.base.revision,
        # Empty and zero, not null: a column's type must not depend on the recipe.
        "accelerator": adapter.name if adapter else "",
        "accelerator_source": weights.source if weights else "",
        "accelerator_revision": weights.revision if weights else "",
        "accelerator_weight": adapter.weight if adapter else 0.0,
        "sampler": recipe.sampler,
        "sampler_settings": json.dumps(recipe.sampler_settings, sort_keys=True),
        "steps": recipe.steps,
        "guidance": recipe.guidance,
        "dtype": recipe.dtype,
        "engine_key": recipe.engine_key,
        "unet_calls": recipe.unet_calls,
    }


def _iso(milliseconds: int) -> str:
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
