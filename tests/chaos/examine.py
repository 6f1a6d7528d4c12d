"""Looking at what a fault left: the dataset image by image, the queue, files and processes."""

import hashlib
import io
import json
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pyarrow.parquet

from jobs.dataset_index import DatasetIndex
from jobs.job import Job
from jobs.layout import JobLayout
from jobs.manifest import Manifest
from jobs.results import outcome_of
from jobs.store import Store
from tests.chaos.one_site import Site
from tests.chaos.world import Whole
from tests.servers import assert_no_leaks

#: Image -> sha256 of its picture file in an undisturbed run.
Undisturbed = dict[int, str]


@dataclass
class Verdict:
    """Wanted: nothing in any of these."""

    lost: list[int] = field(default_factory=list)
    doubled: list[int] = field(default_factory=list)
    #: Pictures, files and records that say something else than they should.
    wrong: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    #: Ends that were not demanded: the job's, or a process's.
    otherwise: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing was lost, doubled, wrong or left over, and all ended as demanded."""
        found = (self.lost, self.doubled, self.wrong, self.left_over, self.otherwise)
        return not any(found)


@dataclass
class Dataset:
    """A job's shards as a reader finds them."""

    #: Shards that the job had before any retry.
    shards: int
    #: How often each image is a row of a shard, and of those with a picture, its digest.
    rows: Counter[int] = field(default_factory=Counter)
    pictures: dict[int, str] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def count(self, images: list[int], manifest: Manifest) -> None:
        """Add a shard's rows; those of a retry take the place of failed ones."""
        if manifest.shard < self.shards:
            every = sorted([*images, *manifest.dropped])
            ours = images == sorted(images) and every == list(range(manifest.first, manifest.stop))
        else:
            ours = images == sorted(set(images)) and len(images) == manifest.count
            images = [image for image in images if self.failed.pop(image, None) is None]
        if not ours:
            self.wrong.append(f"{manifest.parquet.name}: not the images of its unit")
        self.rows.update(images)


def read_dataset(store: Store, layout: JobLayout) -> Dataset:
    """Read every shard that the index names, and compare each file with what is said of it."""
    found = Dataset(Job.model_validate_json(store.get(layout.job)).shards)
    index = DatasetIndex.model_validate_json(store.get(layout.index))
    said = store.get(layout.success).decode()
    if hashlib.sha256(store.get(layout.index)).hexdigest() not in said:
        found.wrong.append("_SUCCESS names another index")
    for shard in index.shards:
        manifest = Manifest.model_validate_json(store.get(layout.root + shard.stats))
        read_shard(store, layout, manifest, found)
        if (shard.sha256, shard.ok) != (manifest.tar.sha256, manifest.ok):
            found.wrong.append(f"{shard.name}: index and manifest differ")
    named = {shard.name for shard in index.shards}
    named |= {shard.parquet.name for shard in index.shards}
    named |= {shard.stats for shard in index.shards}
    there = {one.key.removeprefix(layout.root) for one in store.list(layout.shards)}
    found.wrong += [f"{name} is in no index" for name in sorted(there - named)]
    return found


def read_shard(store: Store, layout: JobLayout, manifest: Manifest, found: Dataset) -> None:
    """Add one shard; tar, parquet and manifest must tell the same."""
    folder = layout.shards
    table = store.get(folder + manifest.parquet.name)
    tar = store.get(folder + manifest.tar.name)
    for name, data, digest in (
        (manifest.parquet.name, table, manifest.parquet.sha256),
        (manifest.tar.name, tar, manifest.tar.sha256),
    ):
        if hashlib.sha256(data).hexdigest() != digest:
            found.wrong.append(f"{name}: not the bytes that the manifest names")
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(io.BytesIO(table)).to_pylist()
    members = tar_members(tar)
    found.count([row["image"] for row in rows], manifest)
    expected = set()
    for row in rows:
        if row["status"] != "ok":
            found.failed[row["image"]] = row["error"]
            continue
        expected |= {row["file_name"], f"{row['key']}.txt", f"{row['key']}.json"}
        picture = members.get(row["file_name"], b"")
        digest = hashlib.sha256(picture).hexdigest()
        told = json.loads(members.get(f"{row['key']}.json", b"{}"))
        found.pictures[row["image"]] = digest
        if digest != row["sha256"] or told.get("image") != row["image"]:
            found.wrong.append(f"image {row['image']}: tar and parquet differ")
    if expected != members.keys():
        found.wrong.append(f"{manifest.tar.name}: members and rows differ")


def tar_members(data: bytes) -> dict[str, bytes]:
    """Name -> bytes."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def examine(
    site: Site, undisturbed: Undisturbed, jobs: list[Job], verdict: Verdict | None = None
) -> Verdict:
    """Everything that the fault may have left; to be asked after `site.stop()`.

    Adds to `verdict` where one is given.
    """
    verdict = Verdict() if verdict is None else verdict
    for job in jobs:
        _examine_job(site, job, undisturbed, verdict)
    _look_for_leftovers(site, jobs, verdict)
    return verdict


def _examine_job(site: Site, job: Job, undisturbed: Undisturbed, verdict: Verdict) -> None:
    layout, ended = site.layout(job), outcome_of(site.store, site.layout(job))
    wanted = site.outcomes.get(job.id, site.outcome)
    counts = {"the store": (ended.done, ended.failed)}
    if ended.state != wanted:
        verdict.otherwise.append(f"job {job.id} is {ended.state} in the store")
    # A queue that lost its memory is told of open jobs alone.
    if record := site.queue.job(job.id):
        counts["the queue"] = (record.done_images, record.failed_images + record.dead_images)
        if (record.state, record.outcome) != ("closed", wanted):
            verdict.otherwise.append(f"job {job.id} is {record.state} {record.outcome}")
    if ended.state == "done":
        found = _examine_done(site, job, undisturbed, verdict)
        for who, counted in counts.items():
            if counted != (len(found.pictures), len(found.failed)):
                verdict.wrong.append(f"{who} counted {counted}")
    else:
        _examine_ended(site.store, layout, verdict)


def _examine_done(site: Site, job: Job, undisturbed: Undisturbed, verdict: Verdict) -> Dataset:
    found = read_dataset(site.store, site.layout(job))
    own = Whole({image: undisturbed[image] for image in range(job.images)}, site.given_up)
    wanted = site.wholes.get(job.id, own)
    verdict.lost += [image for image in wanted.pictures if not found.rows[image]]
    verdict.doubled += [image for image, times in found.rows.items() if times > 1]
    verdict.wrong += found.wrong
    for image in found.rows.keys() - wanted.pictures.keys():
        verdict.wrong.append(f"image {image}: it was dropped, or never asked for")
    for image, digest in found.pictures.items():
        if digest != wanted.pictures.get(image, digest):
            verdict.wrong.append(f"image {image}: another picture")
    if len(found.failed) != wanted.failed:
        verdict.otherwise.append(f"failed: {found.failed}")
    return found


def _examine_ended(store: Store, layout: JobLayout, verdict: Verdict) -> None:
    """A job that was cancelled or failed: what it left is whole shards, and no dataset."""
    if store.head(layout.success) is not None:
        verdict.wrong.append("_SUCCESS of a job that is not done")
    if store.head(layout.outcome) is None:
        verdict.wrong.append("no outcome.json")
    found = Dataset(Job.model_validate_json(store.get(layout.job)).shards)
    for one in store.list(layout.shards):
        if one.key.endswith("_stats.json"):
            read_shard(store, layout, Manifest.model_validate_json(store.get(one.key)), found)
    verdict.wrong += found.wrong
    verdict.doubled += [image for image, times in found.rows.items() if times > 1]


def _look_for_leftovers(site: Site, jobs: list[Job], verdict: Verdict) -> None:
    left = verdict.left_over
    left += [f"lease {one.unit} of {one.worker}" for one in site.queue.leases()]
    fallen = {str(pid) for child in site.children.values() for pid in child.fallen}
    left += [
        f"renderer {one.worker} is still listed"
        for one in site.queue.renderers()
        if one.info["pid"] not in fallen
    ]
    try:
        assert_no_leaks(site.client)
    except AssertionError as error:
        left.append(f"Redis: {error}")
    for job in jobs:
        staged = f"{site.layout(job).scratch}staged/"
        left += [f"staged {one.key}" for one in site.store.list(staged)]
    left += [f"file {path}" for path in (site.folder / "tmp").rglob("*") if not path.is_dir()]
    left += [f"upload {key}" for key in _uploads(site)]
    left += [f"process {one.name}" for one in site.zygote.living()]


def _uploads(site: Site) -> list[str]:
    """Uploads in parts that nobody ended; rclone keeps no list of them."""
    if not site.s3.honours_absent:
        return []
    reply = site.store._client.list_multipart_uploads(Bucket=site.bucket)
    return [one["Key"] for one in reply.get("Uploads", ())]
