"""What the routes stand on: catalog, queue, store and views, connected when first needed."""

import threading
from typing import Annotated

from fastapi import Depends, Request

from jobs.catalog import load_catalog
from jobs.events import EventFeed
from jobs.layout import segment
from jobs.redis_client import control_client, heartbeat_client
from jobs.s3_client import BRIEF
from jobs.settings import Settings
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from jobs.views import JobViews


class Services:
    """One per app. Making it connects to nothing, so that the API starts before its servers.

    Raises BadConfiguration for a catalog or an address that cannot be right.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.tenant = segment(settings.tenant, "tenant")
        self.catalog = load_catalog(settings.catalog)
        url = settings.redis_url.get_secret_value()
        self._redis = control_client(url)
        self.queue = ShardQueue(self._redis)
        self.feed = EventFeed(self._redis)
        #: Answers or fails within two seconds: for health checks.
        self.probe = heartbeat_client(url)
        self._lock = threading.Lock()
        self._store: Store | None = None
        self._views: JobViews | None = None

    @property
    def store(self) -> Store:
        """The store; raises Unreachable or BadConfiguration while it cannot be reached."""
        with self._lock:
            if self._store is None:
                self._store = Store.connect(self.settings, patience=BRIEF)
            return self._store

    @property
    def views(self) -> JobViews:
        """Views of this tenant's jobs."""
        store = self.store
        with self._lock:
            if self._views is None:
                self._views = JobViews(
                    store, self.queue, prefix=self.settings.s3_prefix, tenant=self.tenant
                )
            return self._views

    def close(self) -> None:
        """Close the connections to Redis."""
        self._redis.close()
        self.probe.close()
        if self._store is not None:
            self._store.close()


def services_of(request: Request) -> Services:
    """The services of the app that a request came to."""
    services: Services = request.app.state.services
    return services


UsesServices = Annotated[Services, Depends(services_of)]
