"""What all requests share: catalog, connections, keys; connected when first needed."""

import logging
import threading
from functools import cached_property, lru_cache
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import Depends, Request

from jobs.allowance import Allowance
from jobs.api.body import UPLOAD_MAX
from jobs.api.key_ring import KeyRing
from jobs.api.metrics import Metrics
from jobs.catalog import load_catalog
from jobs.counting import Counting
from jobs.errors import FewstepError
from jobs.events import EventFeed
from jobs.key_store import KeyStore
from jobs.layout import segment
from jobs.links import LinkSigner
from jobs.pictures import Pictures
from jobs.redis_client import control_client, heartbeat_client
from jobs.references import References
from jobs.s3_client import BRIEF
from jobs.sessions import SessionSigner
from jobs.settings import Settings
from jobs.shard_queue import ShardQueue
from jobs.shard_sheet import ShardSheets
from jobs.store import Store
from jobs.thumbnails import Thumbnails
from jobs.views import JobViews
from jobs.webhook_outbox import Outbox
from jobs.webhook_sender import Sender
from jobs.webhooks import HookStore

log = logging.getLogger(__name__)

#: Pictures that are made small, and sheets that are made, at a time.
MAKERS = 4
#: Dry runs at a time; more wait, and hold no thread meanwhile.
CHECKERS = 8
#: Drops and their undoing at a time: each reads and writes a dataset, for hours if it is large.
CHANGERS = 4
#: Tenants whose views, with the jobs they have read, are kept in memory.
TENANTS_KEPT = 200
#: Between two looks for a store that is away.
RETRY_S = 5.0


class House:
    """One per app. Making it connects to nothing, so that the API starts before its servers.

    Raises BadConfiguration for a catalog or an address that cannot be right.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        segment(settings.tenant, "tenant")
        self.catalog = load_catalog(
            settings.catalog, allow_noncommercial=settings.allow_noncommercial
        )
        url = settings.redis_url.get_secret_value()
        self._redis = control_client(url)
        self.queue = ShardQueue(self._redis, keep_ms=settings.keep_ms)
        self.feed = EventFeed(self._redis)
        self.allowance = Allowance(self._redis)
        self.outbox = Outbox(self._redis)
        self.keys = KeyRing(lambda: KeyStore(self.store, settings.s3_prefix))
        #: Answers or fails within two seconds: for health checks.
        self.probe = heartbeat_client(url)
        self.views_of = lru_cache(TENANTS_KEPT)(self._views_of)
        self.metrics = Metrics(self.queue, self.probe)
        self.references = References(settings, UPLOAD_MAX)
        #: Of threads that decode pictures: those of all other requests stay free.
        self.makers = CapacityLimiter(MAKERS)
        #: Of threads that read prompts for dry runs.
        self.checkers = CapacityLimiter(CHECKERS)
        #: Of threads that take rows out of datasets.
        self.changers = CapacityLimiter(CHANGERS)
        self._lock = threading.Lock()
        self._store: Store | None = None

    @property
    def store(self) -> Store:
        """The store; raises Unreachable or BadConfiguration while it cannot be reached."""
        with self._lock:
            if self._store is None:
                self._store = Store.connect(self.settings, patience=BRIEF)
            return self._store

    @cached_property
    def pictures(self) -> Pictures:
        """Single pictures of shards."""
        return Pictures(self.store)

    @cached_property
    def thumbnails(self) -> Thumbnails:
        """Small pictures of shards."""
        return Thumbnails(self.pictures)

    @cached_property
    def sheets(self) -> ShardSheets:
        """Contact sheets of shards."""
        return ShardSheets(self.pictures)

    @cached_property
    def counting(self) -> Counting:
        """Coverage of jobs."""
        return Counting(self.store)

    @cached_property
    def links(self) -> LinkSigner:
        """Links to single pictures; raises Unreachable while the store cannot be reached."""
        return LinkSigner(self.store, self.settings.s3_prefix)

    @cached_property
    def sessions(self) -> SessionSigner:
        """Sign-ins of the page; raises Unreachable while the store cannot be reached."""
        return SessionSigner(self.store, self.settings.s3_prefix)

    @cached_property
    def hooks(self) -> HookStore:
        """Everybody's webhooks; raises Unreachable while the store cannot be reached."""
        return HookStore(self.store, self.settings.s3_prefix)

    def tell_hooks(self, stop: threading.Event) -> None:
        """Tell webhooks what happens, until told to stop; waits for the store to come up."""
        while not stop.is_set():
            try:
                hooks = self.hooks
            except FewstepError as error:
                log.warning("webhooks_wait error=%s", error)
                stop.wait(RETRY_S)
                continue
            Sender(self.queue, self.feed, self.outbox, hooks, self.settings.webhooks).run(stop)

    def _views_of(self, tenant: str) -> JobViews:
        """Views of one tenant's jobs."""
        return JobViews(self.store, self.queue, prefix=self.settings.s3_prefix, tenant=tenant)

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()
        self.probe.close()
        self.references.close()
        if self._store is not None:
            self._store.close()


def house_of(request: Request) -> House:
    """The house of the app that a request came to."""
    house: House = request.app.state.house
    return house


UsesHouse = Annotated[House, Depends(house_of)]
