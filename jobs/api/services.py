"""What a route stands on: the house's catalog, queue and store, and the views of who asks."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends

from jobs.api.house import House, UsesHouse
from jobs.api.visitor import UsesVisitor, Visitor
from jobs.catalog import Catalog
from jobs.job import JobRequest, Submission
from jobs.rows import Row
from jobs.settings import Settings
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from jobs.submit import submit_job
from jobs.templates.template import Template
from jobs.views import JobViews


@dataclass(frozen=True, slots=True)
class Services:
    """One per request. Whatever names a job goes through `views`, which know one tenant's alone."""

    house: House
    visitor: Visitor

    @property
    def settings(self) -> Settings:
        """The operator's settings."""
        return self.house.settings

    @property
    def tenant(self) -> str:
        """Whose request it is."""
        return self.visitor.tenant

    @property
    def catalog(self) -> Catalog:
        """What can be rendered."""
        return self.house.catalog

    @property
    def queue(self) -> ShardQueue:
        """All tenants' queue: ask `views` first whether a job is this tenant's."""
        return self.house.queue

    @property
    def store(self) -> Store:
        """The store; raises Unreachable or BadConfiguration while it cannot be reached."""
        return self.house.store

    @property
    def views(self) -> JobViews:
        """Views of this tenant's jobs."""
        return self.house.views_of(self.tenant)

    def submit(self, request: JobRequest, rows: Iterable[Row] | Template, key: str) -> Submission:
        """Accept a job of this tenant's, within its quota; raises what `submit_job` does."""
        return submit_job(
            self.store,
            self.queue,
            self.catalog,
            prefix=self.settings.s3_prefix,
            tenant=self.tenant,
            request=request,
            rows=rows,
            idempotency_key=key,
            now_ms=time.time_ns() // 1_000_000,
            quota=self.visitor.quota,
            allowance=self.house.allowance,
        )


def services_of(house: UsesHouse, visitor: UsesVisitor) -> Services:
    """The services for a request; raises what `visitor_of` does."""
    return Services(house, visitor)


UsesServices = Annotated[Services, Depends(services_of)]
