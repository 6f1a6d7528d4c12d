"""Weights from S3-compatible storage: copied to this node once, whole, and kept there."""

import hashlib
import shutil
from pathlib import Path, PurePosixPath

from jobs.errors import BadConfiguration
from jobs.objects import ObjectInfo
from jobs.recipe import Weights
from jobs.s3_client import s3_clients
from jobs.settings import Settings
from jobs.store import Store
from workers.depot import Depot, temporary

_SUFFIXES = (".safetensors", ".json", ".txt")


def from_s3(weights: Weights, depot: Depot) -> Path:
    """The local folder of an `s3://bucket/prefix`, or the file of an `s3://bucket/key.safetensors`.

    The copy's name is taken from the objects' keys, sizes and etags: what changes there is copied
    anew. Raises BadConfiguration where there is nothing to load, or no folder to copy to, and what
    the store raises.
    """
    bucket, _, prefix = weights.source.removeprefix("s3://").partition("/")
    settings = depot.settings
    if settings is None or depot.cache is None or not prefix.strip("/"):
        raise BadConfiguration(
            "weights in a store need a bucket, a prefix, and a cache folder to be copied to",
            where=weights.source,
            remedy="give s3://bucket/prefix, and FEWSTEP_CACHE_BYTES above 0",
        )
    store = _store(bucket, settings, patient=True)
    try:
        objects = _listed(store, prefix, weights)
        name = _name(weights.source, objects)
        with depot.locked(f"source-{name}"):
            entry = depot.entry("sources", name)
            if entry is None:
                raise AssertionError("a depot with a cache has entries")
            if not depot.reuse(entry):
                _copy(store, objects, prefix, entry, depot)
    finally:
        store.close()
    return entry / PurePosixPath(prefix).name if prefix.endswith(".safetensors") else entry


def in_s3(weights: Weights, settings: Settings) -> list[ObjectInfo]:
    """The objects that nodes would copy; nothing is copied. Raises as `from_s3`, within seconds."""
    bucket, _, prefix = weights.source.removeprefix("s3://").partition("/")
    store = _store(bucket, settings, patient=False)
    try:
        return _listed(store, prefix, weights)
    finally:
        store.close()


def _store(bucket: str, settings: Settings, *, patient: bool) -> Store:
    address = settings.s3_endpoint or f"AWS S3 in {settings.s3_region}"
    return Store(s3_clients(settings)[patient], bucket, address, honours_absent=False)


def _listed(store: Store, prefix: str, weights: Weights) -> list[ObjectInfo]:
    if prefix.endswith(".safetensors"):
        one = store.head(prefix)
        found = [] if one is None else [one]
    else:
        found = [one for one in store.list(f"{prefix.rstrip('/')}/") if _wanted(one.key, weights)]
    if not found:
        raise BadConfiguration(
            "there is no object to load",
            where=f"{store.address}, {weights.source}",
            remedy="check bucket, prefix and file; only .safetensors, .json and .txt are read",
        )
    return found


def _wanted(key: str, weights: Weights) -> bool:
    if weights.file:
        return key.endswith((f"/{weights.file}", "/config.json"))
    return key.endswith(_SUFFIXES)


def _name(source: str, objects: list[ObjectInfo]) -> str:
    facts = "\n".join(f"{one.key} {one.bytes} {one.etag}" for one in objects)
    return hashlib.sha256(f"{source}\n{facts}".encode()).hexdigest()[:24]


def _copy(store: Store, objects: list[ObjectInfo], prefix: str, entry: Path, depot: Depot) -> None:
    single = prefix.endswith(".safetensors")
    root = PurePosixPath(prefix).parent if single else PurePosixPath(prefix.rstrip("/"))
    made = temporary(entry)
    try:
        for one in objects:
            target = (made / PurePosixPath(one.key).relative_to(root)).resolve()
            if not target.is_relative_to(made.resolve()):
                raise BadConfiguration("an object's key leaves its folder", where=one.key)
            store.download(one.key, target)
        depot.keep(made, entry)
    finally:
        shutil.rmtree(made, ignore_errors=True)
