"""`croissant.json`: what the dataset holds, for machines that read Croissant (MLCommons, 1.0)."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from jobs.card_form import plain
from jobs.dataset_index import DatasetIndex
from jobs.job import Job
from jobs.layout import SPLIT
from jobs.shard_row import schema_of

_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_MEDIA = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
_KINDS = {pa.int64(): "sc:Integer", pa.float64(): "sc:Float", pa.bool_(): "sc:Boolean"}
#: The JPEG's own extension is shorter than its name.
_EXTENSIONS = {"jpeg": "jpg"}


def croissant(job: Job, index: DatasetIndex, index_sha256: str, licences: Mapping[str, str]) -> str:
    """The metadata of a dataset: its files, the columns of its rows, and their pictures.

    `index_sha256` is of `index.json`, which has the digest of every file.
    """
    extension = _EXTENSIONS.get(job.format, job.format)
    made = datetime.fromtimestamp(job.submitted_ms / 1000, UTC)
    told = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": plain(job.name) or f"fewstep-{job.id}",
        "description": f"{index.ok} pictures of {job.rows.count} prompts, made by the diffusion "
        f"model {job.recipe.model}{_steps(job)}.",
        "license": sorted(set(licences.values())) or ["unknown"],
        "url": f"urn:fewstep:{job.id}",
        "version": job.fewstep,
        "datePublished": made.strftime("%Y-%m-%d"),
        "isLiveDataset": False,
        "distribution": list(_files(job, extension, index_sha256)),
        "recordSet": [_records(job)],
    }
    return json.dumps(told, indent=1, ensure_ascii=False)


def _steps(job: Job) -> str:
    """In how many, where rows have no settings of their own."""
    return "" if job.rows.recipes else f" in {job.recipe.steps} steps"


def _files(job: Job, extension: str, index_sha256: str) -> Iterable[dict[str, Any]]:
    yield {
        "@type": "cr:FileObject",
        "@id": "dataset",
        "name": "dataset",
        "description": "The dataset's folder; the digest is index.json's, which has all others.",
        "contentUrl": ".",
        "encodingFormat": "git+https",
        "sha256": index_sha256,
    }
    for name, includes, media in (
        ("tables", f"{SPLIT}/*.parquet", "application/vnd.apache.parquet"),
        ("tars", f"{SPLIT}/*.tar", "application/x-tar"),
    ):
        yield {
            "@type": "cr:FileSet",
            "@id": name,
            "name": name,
            "containedIn": {"@id": "dataset"},
            "includes": includes,
            "encodingFormat": media,
        }
    yield {
        "@type": "cr:FileSet",
        "@id": "pictures",
        "name": "pictures",
        "containedIn": {"@id": "tars"},
        "includes": f"*.{extension}",
        "encodingFormat": _MEDIA[job.format],
    }


def _records(job: Job) -> dict[str, Any]:
    columns = [_field(field) for field in schema_of(job.columns)]
    picture = {
        "@type": "cr:Field",
        "@id": "rows/picture",
        "name": "picture",
        "dataType": "sc:ImageObject",
        "source": {"fileSet": {"@id": "pictures"}, "extract": {"fileProperty": "content"}},
    }
    name = next(one for one in columns if one["name"] == "file_name")
    name["references"] = {
        "fileSet": {"@id": "pictures"},
        "extract": {"fileProperty": "filename"},
    }
    return {
        "@type": "cr:RecordSet",
        "@id": "rows",
        "name": "rows",
        "description": "A row for each image; one without a picture has the status failed.",
        "key": {"@id": "rows/image"},
        "field": [*columns, picture],
    }


def _field(field: Any) -> dict[str, Any]:
    kind = field.type
    told: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"rows/{field.name}",
        "name": field.name,
        "dataType": "sc:DateTime" if pa.types.is_timestamp(kind) else _KINDS.get(kind, "sc:Text"),
        "source": {"fileSet": {"@id": "tables"}, "extract": {"column": field.name}},
    }
    return told | ({"repeated": True} if pa.types.is_list(kind) else {})
