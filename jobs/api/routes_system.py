"""Routes about the house: what can be rendered, who renders, whether the servers answer."""

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field

from jobs.api.house import House, UsesHouse
from jobs.api.problems import responses
from jobs.api.services import UsesServices
from jobs.api.visitor import ADMIN
from jobs.errors import FewstepError
from jobs.offers import (
    AcceleratorOffer,
    FilterOffer,
    ModelOffer,
    StyleOffer,
    accelerator_offers,
    filter_offers,
    model_offers,
    style_offers,
)
from jobs.redis_client import check_server

router = APIRouter(prefix="/v1", tags=["catalog and cluster"])
probes = APIRouter(tags=["health"])


class RendererView(BaseModel):
    """A renderer with a heartbeat that has not run out."""

    worker: str
    beat_ms: int = Field(description="Its last heartbeat, milliseconds since 1970 (UTC)")
    info: dict[str, str] = Field(description="What it says of itself: engine, device, state, ...")


class BacklogView(BaseModel):
    """What waits for one engine."""

    engine_key: str
    jobs: int
    images_waiting: int
    shards_running: int


class ClusterView(BaseModel):
    """Who renders, and what waits."""

    renderers: list[RendererView]
    backlog: list[BacklogView]
    scheduler_age_ms: int | None = Field(
        description="Since the scheduler was last heard of; null: never"
    )


class Health(BaseModel):
    """`ok`, and what was checked."""

    status: str = Field(examples=["ok"])
    checks: dict[str, str] = Field(default_factory=dict, examples=[{"redis": "ok", "store": "ok"}])


@router.get("/models", summary="Base models by name")
def models(services: UsesServices) -> dict[str, ModelOffer]:
    """What each can make, with what, under which licence, and what it takes in memory."""
    return model_offers(services.catalog)


@router.get("/accelerators", summary="Few-step adapters by name")
def accelerators(services: UsesServices) -> dict[str, AcceleratorOffer]:
    """The models each fits, the steps and guidance it allows, and its licence."""
    return accelerator_offers(services.catalog)


@router.get("/styles", summary="Style LoRAs by name")
def styles(services: UsesServices) -> dict[str, StyleOffer]:
    """The models each fits, its default weight and its licence."""
    return style_offers(services.catalog)


@router.get("/filters", summary="Filters by name")
def filters(services: UsesServices) -> dict[str, FilterOffer]:
    """What each score means, its default limits, its policies, and whose pictures it can score."""
    return filter_offers(services.catalog)


@router.get(
    "/cluster",
    summary="Renderers, backlog and scheduler",
    responses=responses(503),
    dependencies=[ADMIN],
)
def cluster(services: UsesServices) -> ClusterView:
    """Living renderers by heartbeat, what waits for each engine, the scheduler's age.

    Takes the scope `admin`, because it shows all tenants' work.
    """
    return ClusterView(
        renderers=[
            RendererView(worker=one.worker, beat_ms=one.beat_ms, info=dict(one.info))
            for one in services.queue.renderers()
        ],
        backlog=[
            BacklogView(
                engine_key=one.engine_key,
                jobs=one.jobs,
                images_waiting=one.images_waiting,
                shards_running=one.units_in_flight,
            )
            for one in services.queue.backlog()
        ],
        scheduler_age_ms=services.queue.scheduler_age_ms(),
    )


@probes.get("/healthz", summary="The API itself lives")
async def healthz() -> Health:
    """Answers as long as the process does; asks no other server."""
    # No thread of the pool: all of them may be waiting for a server that is away.
    return Health(status="ok")


@probes.get("/readyz", summary="Redis and the store answer", responses=responses(503))
def readyz(house: UsesHouse) -> Health:
    """Asks both now; 503 names each that does not answer."""
    checks = {"redis": _check_redis(house), "store": _check_store(house)}
    broken = {name: error for name, error in checks.items() if error is not None}
    if broken:
        first = next(iter(broken.values()))
        raise type(first)(
            "; ".join(error.message for error in broken.values()),
            where="; ".join(f"{name} at {error.where}" for name, error in broken.items()),
            remedy=first.remedy,
        )
    return Health(status="ok", checks=dict.fromkeys(checks, "ok"))


@probes.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=PlainTextResponse,
    responses=responses(503),
    dependencies=[ADMIN],
)
def metrics(house: UsesHouse) -> Response:
    """Queue, pool, rendering, failures, the store, Redis, requests: docs/operations.md lists them.

    Takes a key with the scope `admin` where keys are asked for.
    """
    return Response(house.metrics.page(), media_type=CONTENT_TYPE_LATEST)


def _check_redis(house: House) -> FewstepError | None:
    try:
        check_server(house.probe)
    except FewstepError as error:
        return error
    return None


def _check_store(house: House) -> FewstepError | None:
    try:
        # A key that never is: an answer of any kind is what we want.
        house.store.head(f"{house.settings.s3_prefix}/_scratch/ready")
    except FewstepError as error:
        return error
    return None
