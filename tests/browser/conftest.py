"""A real Chromium against a real API that asks for keys; one of each for a module."""

import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    expect,
    sync_playwright,
)

from jobs.key_store import KeyStore
from jobs.keys import Scope, make_key
from tests.api_servers import RunningApi, serving
from tests.leaks import lasting
from tests.servers import wait_until

#: Where Debian, Ubuntu and others put it.
NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
#: For one step of a page, in milliseconds: the machine may be busy.
PATIENCE_MS = 60_000


def find_chromium() -> str | None:
    """The browser, or None where there is none; FEWSTEP_CHROMIUM names another one."""
    named = os.environ.get("FEWSTEP_CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


#: What htmx notes of a preview that was under way when its page was left. One that the API
#: refuses, or cannot answer, is `htmx:responseError`.
_LEFT = ("htmx:afterRequest", "htmx:sendError", "htmx:sendAbort")


@dataclass
class Site:
    """The page's address, and the servers behind it as a test may look at them."""

    url: str
    api: RunningApi
    keys: KeyStore
    #: What browsers complained about: a broken policy, a script's error.
    complaints: list[str] = field(default_factory=list)

    def key(self, tenant: str, *scopes: Scope) -> str:
        """The text of a new key."""
        key, text = make_key(
            tenant, scopes or ("submit", "read"), now_ms=1_700_000_000_000, requests_a_minute=6_000
        )
        self.keys.add(key)
        # The API looks for new keys once a second.
        with self.http(text) as http:
            wait_until(lambda: http.get("/v1/models").status_code != 401, "the key", 60)
        return text

    def http(self, key: str) -> httpx.Client:
        """A plain client of the API behind the page."""
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=60)


@pytest.fixture(scope="module")
def site(_session_api: RunningApi) -> Iterator[Site]:
    """The page on the session's Redis and store, both empty at first."""
    _session_api.redis.flushall()
    _session_api.store.delete(found.key for found in _session_api.store.list(""))
    settings = _session_api.settings.model_copy(
        update={"keys": "required", "device_hour_price": 0.5}
    )
    with serving(settings) as url:
        yield Site(url, _session_api, KeyStore(_session_api.store, settings.s3_prefix))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The browser; tests that need it are skipped where there is none."""
    path = find_chromium()
    if path is None:
        pytest.skip("no chromium is found: apt-get install chromium, or set FEWSTEP_CHROMIUM")
    with lasting(), sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


def watched(site: Site, context: BrowserContext) -> Page:
    """A page whose complaints are noted."""
    context.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    page = context.new_page()
    page.on("pageerror", lambda error: site.complaints.append(f"script: {error}"))
    page.on(
        "console",
        lambda said: site.complaints.append(said.text) if _complains(said) else None,
    )
    return page


def _complains(said: ConsoleMessage) -> bool:
    return said.type == "error" and not said.text.startswith(_LEFT)


@pytest.fixture
def stranger(site: Site, chromium: Browser) -> Iterator[Page]:
    """A browser in which nobody is signed in."""
    context = chromium.new_context(base_url=site.url)
    yield watched(site, context)
    context.close()


@dataclass
class Visit:
    """Somebody signed in: the tenant's own browser page and plain client."""

    tenant: str
    page: Page
    http: httpx.Client
    site: Site


@pytest.fixture
def visit(site: Site, chromium: Browser) -> Iterator[Visit]:
    """A tenant of its own, signed in; no complaint of the browser's may be left unread."""
    # A job that an earlier test left waiting would be rendered first.
    site.api.redis.flushall()
    tenant = f"t-{uuid.uuid4().hex[:8]}"
    key = site.key(tenant, "admin")
    context = chromium.new_context(base_url=site.url)
    sign_in(context, site, key)
    site.complaints.clear()
    with site.http(key) as http:
        yield Visit(tenant, watched(site, context), http, site)
    context.close()
    assert site.complaints == []


def sign_in(context: BrowserContext, site: Site, key: str) -> None:
    """Sign in without the form."""
    reply = context.request.post(
        "/sign-in", form={"key": key}, headers={"Origin": site.url}, max_redirects=0
    )
    assert reply.status == 303, reply.text()
