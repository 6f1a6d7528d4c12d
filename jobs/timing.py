"""`timing.json`: where a job's time went, stage by stage. Pure arithmetic over manifests."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from pydantic import Field

from jobs.bottleneck import Bottleneck, bottleneck_of
from jobs.job import Job
from jobs.manifest import Manifest, Tally
from jobs.recipe import Frozen
from jobs.records import LoadTimes
from jobs.setting_tallies import DEVICE, SettingTally, added_up

#: Stage of one image in `timing.json` -> its column in the parquet files.
_IMAGE_STAGES = {
    "text_encoding": "text_ms",
    "denoising": "denoise_ms",
    "decode": "decode_ms",
    "transfer": "transfer_ms",
    "encode": "encode_ms",
    "filters": "filter_ms",
    "upload": "upload_ms",
}


class StageTiming(Frozen):
    """A stage's milliseconds: p50 and p95 within 1 %, None where nothing was counted."""

    per: str
    count: int
    sum_ms: float
    p50_ms: float | None
    p95_ms: float | None


class Timing(Frozen):
    """Where a job's time went; moments both as ISO 8601 and as milliseconds since 1970, UTC."""

    job: str
    images: int
    ok: int
    failed: int
    submitted: str
    started: str
    finished: str
    submitted_ms: int
    started_ms: int
    finished_ms: int
    #: From the first claim's start to the last commit; of later rounds, the same, added up.
    wall_s: float
    #: From the submission to the first claim's start.
    waited_s: float
    #: Pictures made per second of `wall_s`.
    images_per_second: float | None
    #: Seconds that devices worked: text encoding, denoising and decoding.
    device_seconds: float
    #: None: not all pictures have the same; `settings` tells them.
    steps: int | None
    unet_calls_per_step: int | None
    unet_calls: int
    tokens_lost: int
    #: The most memory that any renderer had held: of its GPU, or of its process on a CPU.
    memory_bytes: int = 0
    #: Crashes of units that were then rendered again or adopted.
    retries: int
    #: Units that another claim than their maker's finished.
    adopted: int
    #: Renderer -> images it accounts for.
    renderers: dict[str, int]
    stages: dict[str, StageTiming] = Field(default_factory=dict)
    #: What the pictures were made with, most of them first; empty in files of earlier versions.
    settings: tuple[SettingTally, ...] = Field(default=(), strict=False)
    #: Pictures of yet other settings, or of which nobody wrote down which.
    settings_untold: int = 0
    #: What held the job up and what to change; None in files of earlier versions.
    bottleneck: Bottleneck | None = None


def timing_of(
    job: Job,
    manifests: Sequence[Manifest],
    retries: int | None = None,
    *,
    later: Sequence[Sequence[Manifest]] = (),
    failed: int | None = None,
) -> Timing:
    """The timing of a finished job; `retries`: the queue's count where it knows better.

    `later`: the manifests of each later round, and `failed` what no round made.
    """
    started_ms, finished_ms = _ends(job, manifests)
    wall_s = (finished_ms - started_ms) / 1000
    # A round without shards took no time: one that was cancelled at once, or a drop.
    for some in filter(None, later):
        begun, finished_ms = _ends(job, some)
        wall_s += (finished_ms - begun) / 1000
        manifests = [*manifests, *some]
    made = sum(one.ok for one in manifests)
    settings, untold = settings_of(job, manifests)
    waited_s = max(0.0, (started_ms - job.submitted_ms) / 1000)
    return Timing(
        job=job.id,
        images=job.images,
        ok=made,
        failed=sum(one.failed for one in manifests) if failed is None else failed,
        submitted=_iso(job.submitted_ms),
        started=_iso(started_ms),
        finished=_iso(finished_ms),
        submitted_ms=job.submitted_ms,
        started_ms=started_ms,
        finished_ms=finished_ms,
        wall_s=wall_s,
        waited_s=waited_s,
        images_per_second=round(made / wall_s, 3) if wall_s else None,
        device_seconds=round(sum(one.times.device_ms for one in manifests) / 1000, 3),
        steps=_same([one.steps for one in settings], job.recipe.steps, untold),
        unet_calls_per_step=_same(
            [one.calls_per_step for one in settings], 2 if job.recipe.guided else 1, untold
        ),
        unet_calls=sum(one.unet_calls for one in manifests),
        tokens_lost=sum(one.tokens_lost for one in manifests),
        memory_bytes=max((one.times.memory_bytes for one in manifests), default=0),
        retries=sum(one.attempt for one in manifests) if retries is None else retries,
        adopted=sum(one.adopted for one in manifests),
        renderers=_renderers(manifests),
        stages=_stages(manifests),
        settings=settings,
        settings_untold=untold,
        bottleneck=_bottleneck(manifests, waited_s, wall_s),
    )


def _same(found: Sequence[int], own: int, untold: int) -> int | None:
    """What all have; the job's `own` where there is no picture, None where they differ."""
    every = set(found) or {own}
    return None if untold or len(every) > 1 else every.pop()


def settings_of(job: Job, manifests: Sequence[Manifest]) -> tuple[tuple[SettingTally, ...], int]:
    """The settings of all pictures that were made, and of how many they are not told."""
    recipe, found = job.recipe, list[SettingTally]()
    for one in manifests:
        # An earlier version counted none: they are the job's where its rows have no others.
        if one.settings or (one.settings is None and job.rows.recipes):
            found += one.settings or ()
            continue
        times = [one.stages[name] for name in DEVICE if name in one.stages]
        own = SettingTally(
            width=recipe.width,
            height=recipe.height,
            steps=recipe.steps,
            guidance=recipe.guidance,
            sampler=recipe.sampler,
            pictures=_pictures(one),
            unet_calls=one.unet_calls,
            device_seconds=sum(tally.sum_ms for tally in times) / 1000,
        )
        found += [own] if own.pictures else []
    told = added_up(found)
    return told, sum(map(_pictures, manifests)) - sum(one.pictures for one in told)


def _pictures(one: Manifest) -> int:
    """Pictures that were made for a unit, those too that were dropped since."""
    return one.stages["denoise_ms"].count if "denoise_ms" in one.stages else one.ok


def _bottleneck(manifests: Sequence[Manifest], waited_s: float, wall_s: float) -> Bottleneck:
    times = [one.times for one in manifests]
    return bottleneck_of(
        device_ms=sum(one.device_ms for one in times),
        work_ms=sum(one.work_stall_ms for one in times),
        encode_ms=sum(one.encode_stall_ms for one in times),
        store_ms=sum(one.store_stall_ms for one in times),
        filter_ms=sum(one.filter_ms for one in times),
        waited_s=waited_s,
        wall_s=wall_s,
    )


def _ends(job: Job, manifests: Sequence[Manifest]) -> tuple[int, int]:
    """When the first claim of a round started, and its last commit ended."""
    started = [one.times.started_ms for one in manifests if one.times.started_ms]
    started_ms = min(started, default=job.submitted_ms)
    return started_ms, max([started_ms, *(one.times.finished_ms for one in manifests)])


def _stages(manifests: Sequence[Manifest]) -> dict[str, StageTiming]:
    loads = [one.times.load_ms for one in manifests if one.times.load_ms]
    whole = {
        "queue_wait": _stage("unit", Tally.of(one.times.wait_ms for one in manifests)),
        # Only the units that waited for it: an engine is loaded once and used many times.
        "model_load": _stage("load", Tally.of(loads)),
        **_load_stages([one.times.load for one in manifests if one.times.load]),
    }
    images = {
        name: _stage("image", Tally.total(one.stages.get(column, Tally()) for one in manifests))
        for name, column in _IMAGE_STAGES.items()
    }
    if not images["filters"].count:
        del images["filters"]
    return {**whole, **images}


def _load_stages(loads: Sequence[LoadTimes]) -> dict[str, StageTiming]:
    """What the loads were made of, and the first batches after them; nothing where none told."""
    names = {name: f"load_{name.removesuffix('_ms')}" for name in LoadTimes.model_fields}
    return {
        stage: _stage("load", Tally.of(getattr(one, name) for one in loads))
        for name, stage in names.items()
        if loads
    }


def _stage(per: str, tally: Tally) -> StageTiming:
    return StageTiming(
        per=per,
        count=tally.count,
        sum_ms=round(tally.sum_ms, 3),
        p50_ms=_rounded(tally.quantile(0.50)),
        p95_ms=_rounded(tally.quantile(0.95)),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _renderers(manifests: Sequence[Manifest]) -> dict[str, int]:
    images: Counter[str] = Counter()
    for one in manifests:
        images[one.worker] += one.count
    return dict(sorted(images.items()))


def _iso(milliseconds: int) -> str:
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
