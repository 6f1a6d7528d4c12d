"""The cluster, for operators: who renders, what it holds and how busy it is, and what waits."""

from dataclasses import dataclass

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from jobs.api.routes_system import BacklogView, cluster
from jobs.api.services import Services
from jobs.errors import DamagedJob, NotFound
from jobs.page.rendering import page
from jobs.page.route import PageRoute
from jobs.page.visitor import Looks
from jobs.specs import read_job
from jobs.waiting import SCHEDULER_AWAY_MS

#: Changes of the pool that are shown.
CHANGES = 20
#: Engines without a renderer whose names are looked up.
NAMED = 20


def operators_only(services: Looks) -> None:
    """Raises Forbidden without the scope `admin`: the page shows all tenants' work."""
    services.visitor.require("admin")


router = APIRouter(route_class=PageRoute, tags=["page"], dependencies=[Depends(operators_only)])


@dataclass(frozen=True, slots=True)
class RendererCard:
    """A renderer as the page shows it; None where it does not say."""

    name: str
    engine_key: str
    engine: str
    state: str
    error: str
    device: str
    node: str
    images: int
    beat_ms: int
    busy: float | None
    memory: float | None


@router.get("/cluster")
def show(request: Request, services: Looks) -> Response:
    """Renderers, backlog, the scheduler, and the latest changes of the pool."""
    found = cluster(services)
    cards = [
        RendererCard(
            name=one.worker,
            engine_key=one.info.get("engine_key", ""),
            engine=one.info.get("engine", ""),
            state="draining" if one.info.get("draining") else one.info.get("state", "unknown"),
            error=one.info.get("error", ""),
            device=one.info.get("device", ""),
            node=one.info.get("node", ""),
            images=int(_number(one.info.get("images")) or 0),
            beat_ms=one.beat_ms,
            busy=_number(one.info.get("busy")),
            memory=_number(one.info.get("memory")),
        )
        for one in found.renderers
    ]
    names = {card.engine_key: card.engine for card in cards if card.engine}
    nameless = [one.engine_key for one in found.backlog if one.engine_key not in names]
    names |= _names(services, nameless)
    age = found.scheduler_age_ms
    return page(
        request,
        "cluster.html",
        services,
        cards=cards,
        backlog=_waiting(found.backlog),
        names=names,
        scheduler_age_s=None if age is None else age / 1_000,
        scheduler_away=age is None or age > SCHEDULER_AWAY_MS,
        changes=services.queue.pool_changes(CHANGES),
    )


def _waiting(backlog: list[BacklogView]) -> list[BacklogView]:
    return sorted(backlog, key=lambda one: -one.images_waiting)


def _names(services: Services, engine_keys: list[str]) -> dict[str, str]:
    """The names of engines that no renderer holds, each from one of the jobs that wait for it."""
    wanted, found = set(engine_keys[:NAMED]), dict[str, str]()
    for job in services.queue.open_jobs() if wanted else ():
        if job.engine_key in wanted - found.keys():
            try:
                spec = read_job(services.store, services.settings.s3_prefix, job.tenant, job.job_id)
            except (NotFound, DamagedJob):
                # Another job of the engine may tell.
                continue
            found[job.engine_key] = spec.recipe.title
    return found


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
