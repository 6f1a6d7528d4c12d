"""`make screenshots`: every page of a real local stack, as docs/images/page-*.png.

The pictures are rendered by the tiny model on Ray; the failed images alone are made up: they are
committed under a claim of this script's, for an engine that no renderer holds yet.
"""

import io
import itertools
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from fewstep.private_stack import private_stack
from jobs.redis_client import control_client
from jobs.shard_queue import ShardQueue
from jobs.store import Store
from tests.api_renderer import render_shards
from tests.api_servers import RunningApi, serving
from tests.browser.conftest import find_chromium
from tests.servers import wait_until

OUT = Path(__file__).resolve().parents[2] / "docs" / "images"
WIDE, PHONE = (1200, 860), (390, 800)
#: No file is larger, so that the repository stays small.
BYTES_MAX = 300_000
COLOURS = ("red", "blue", "green", "yellow", "purple", "orange")
SHAPES = ("circle", "square", "triangle", "star", "heart", "ring", "cross", "diamond")
#: Whether every picture that can be seen is there.
LOADED = """() => [...document.images].every((one) =>
  one.getBoundingClientRect().top > innerHeight || (one.complete && one.naturalWidth > 0))"""
#: The colours of text, backgrounds and shapes, which pictures must not crowd out of the palette.
OWN_COLOURS = """() => {
  const found = new Set();
  for (const one of document.querySelectorAll('*')) {
    const style = getComputedStyle(one);
    for (const name of ['color', 'backgroundColor', 'fill', 'borderTopColor'])
      found.add(style[name]);
  }
  return [...found].filter((one) => one.startsWith('rgb(')).slice(0, 40)
    .map((one) => one.match(/\\d+/g).map(Number));
}"""
TEMPLATE = {
    "template": "a {{size}} {{color}} {{shape}} on a white background",
    "lists": {
        "size": ["big", "2::small"],
        "color": ["red", "blue", "green", "yellow"],
        "shape": ["circle", "square", "star", "heart", "ring"],
    },
    "mode": "balanced",
    "count": 120,
}
#: What the judge of the tiny model can tell.
CAPTIONS = {
    "template": "a {{size}} {{color}} {{shape}} in the centre on a white background",
    "lists": {"size": ["big", "small"], "color": [*COLOURS], "shape": [*SHAPES[:4]]},
}
WISH = {
    "filters": [
        {"name": "prompt_agreement", "at_least": 1, "policy": "retry"},
        {"name": "near_duplicate", "policy": "keep"},
    ],
    "accept": 2,
    "max_tries": 2,
}
PROMPTS = [
    f"a {colour} {shape} on a {paper} background"
    for shape, colour, paper in itertools.product(SHAPES, COLOURS, ("white", "black"))
]


@dataclass
class Studio:
    """The stack's address, and a browser."""

    http: httpx.Client
    browser: Browser

    def submit(self, name: str, prompts: list[Any] | dict[str, Any], **job: Any) -> str:
        """Submit a job of prompts or of a template; its id."""
        source = "template" if isinstance(prompts, dict) else "prompts"
        body = {"job": {"name": name, "seed": 7} | job, source: prompts}
        reply = self.http.post("/v1/jobs", json=body)
        assert reply.status_code == 202, reply.text
        return str(reply.json()["id"])

    def wait(self, job_id: str, *, share: float = 1.0) -> None:
        """Until the job is done, or so much of it."""

        def met() -> bool:
            view = self.http.get(f"/v1/jobs/{job_id}").json()
            settled = view["done"] + view["failed"]
            ended = view["state"] in ("done", "stopped")
            return ended or (share < 1 and settled >= share * view["images"])

        wait_until(met, job_id, 600)

    @contextmanager
    def opened(self, path: str, *, dark: bool = False, phone: bool = False) -> Iterator[Page]:
        """A page with all its pictures loaded."""
        width, height = PHONE if phone else WIDE
        context = self.browser.new_context(
            base_url=str(self.http.base_url),
            color_scheme="dark" if dark else "light",
            viewport={"width": width, "height": height},
            reduced_motion="reduce",
        )
        page = context.new_page()
        page.goto(path)
        page.wait_for_function(LOADED)
        yield page
        context.close()

    def shoot(self, name: str, path: str, **look: bool) -> None:
        """One screenshot of a page as it opens."""
        with self.opened(path, **look) as page:
            keep(page, name)


def keep(page: Page, name: str) -> None:
    """Write a screenshot, in 256 colours, those of the page itself among them."""
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    own = page.evaluate(OWN_COLOURS)
    palette = picture.quantize(256 - len(own)).getpalette() or []
    colours = Image.new("P", (1, 1))
    colours.putpalette(palette[: 3 * (256 - len(own))] + [part for one in own for part in one])
    file = OUT / f"page-{name}.png"
    picture.quantize(palette=colours, dither=Image.Dither.NONE).save(file, optimize=True)
    assert file.stat().st_size < BYTES_MAX, f"{file} is too large"
    print(f"{file.name} {file.stat().st_size:,} bytes", file=sys.stderr)


def shoot_all(studio: Studio, api: RunningApi) -> None:
    """Every page, the longest-running one while it runs."""
    thin = {"styles": [{"name": "outline", "weight": 0.31}]}
    some = studio.submit("Thin outlines", PROMPTS[:12], recipe=thin)
    render_shards(api, some, failed=(2, 5, 9))
    first = studio.submit("First light", PROMPTS[:48], repeats=2)
    studio.wait(first)
    outlined = {"steps": 8, "styles": [{"name": "outline", "weight": 0.8}]}
    studio.submit("Outlined, eight steps", PROMPTS[:24], repeats=2, recipe=outlined)
    large = studio.submit("Shapes and colours", PROMPTS, repeats=24, shard_images=48)
    studio.wait(some)
    studio.wait(large, share=0.1)
    studio.shoot("jobs", "/")
    studio.shoot("jobs-phone", "/", dark=True, phone=True)
    studio.shoot("cluster", "/cluster")
    studio.wait(large, share=0.2)
    studio.shoot("sheet", f"/jobs/{large}")
    studio.shoot("sheet-dark", f"/jobs/{large}", dark=True)
    studio.shoot("sheet-phone", f"/jobs/{large}", phone=True)
    balanced = studio.submit("By template", TEMPLATE, repeats=4, shard_images=32, priority=9)
    studio.wait(balanced, share=0.6)
    studio.shoot("coverage", f"/jobs/{balanced}/coverage")
    studio.shoot("shards-phone", f"/jobs/{balanced}/shards", dark=True, phone=True)
    studio.shoot("pictures", f"/jobs/{first}/pictures?prompt=circle", dark=True)
    studio.shoot("picture", f"/jobs/{first}/pictures/12")
    studio.shoot("picture-phone", f"/jobs/{first}/pictures/12", dark=True, phone=True)
    studio.shoot("failed", f"/jobs/{some}/failed")
    studio.shoot("timing", f"/jobs/{first}/timing", dark=True)
    shoot_wishes(studio)
    shoot_form(studio)


def shoot_wishes(studio: Studio) -> None:
    """What filters and limits came to, and what may be done then."""
    judged = studio.submit("Judged", CAPTIONS, shard_images=24, priority=9, **WISH)
    some = studio.submit("A first look", CAPTIONS, shard_images=12, priority=9, max_images=18)
    studio.wait(judged)
    studio.wait(some)
    with studio.opened(f"/jobs/{judged}/coverage", dark=True) as page:
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        page.wait_for_function(LOADED)
        keep(page, "judged")
    with studio.opened(f"/jobs/{judged}/change") as page:
        page.get_by_label("Condition").fill("shape = 'star' and color in ('red', 'orange')")
        page.get_by_label("Condition").press("Enter")
        page.get_by_role("button", name=re.compile("^Drop .* image")).wait_for()
        page.wait_for_function(LOADED)
        keep(page, "change")
    studio.shoot("change-phone", f"/jobs/{some}/change", dark=True, phone=True)
    with studio.opened("/new") as page:
        page.get_by_label("Prompts", exact=True).fill("\n".join(PROMPTS[:6]))
        page.locator("summary", has_text="Filters").click()
        judge = page.get_by_role("group", name="prompt_agreement")
        judge.get_by_label("A picture beyond").select_option("retry")
        judge.get_by_label("At least").fill("0.8")
        page.get_by_label("Accepted of each prompt").fill("2")
        page.locator("#preview .big", has_text="12").wait_for()
        page.locator("#filters").evaluate("one => one.scrollIntoView()")
        keep(page, "filters")


def shoot_form(studio: Studio) -> None:
    """The form with its preview."""
    with studio.opened("/new") as page:
        page.get_by_label("Prompts", exact=True).fill(
            "a {big|small} {red|blue|green} {circle|star|heart} on a white background"
        )
        page.get_by_label("The text is").select_option("template")
        page.get_by_label("Name").fill("Every combination")
        page.locator("#preview .expanded li").nth(9).wait_for()
        keep(page, "new")


def main() -> None:
    """Start a stack, render, shoot, and stop."""
    path = find_chromium()
    if path is None:
        sys.exit("no chromium is found: apt-get install chromium, or set FEWSTEP_CHROMIUM")
    with private_stack(2, print) as stack, sync_playwright() as playwright:
        settings = stack.settings
        client = control_client(settings.redis_url.get_secret_value())
        store = Store.connect(settings)
        api = RunningApi(settings.api_url, settings, store, ShardQueue(client), client)
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        with httpx.Client(base_url=settings.api_url, trust_env=False, timeout=60) as http:
            shoot_all(Studio(http, browser), api)
        with (
            serving(settings.model_copy(update={"keys": "required"})) as url,
            httpx.Client(base_url=url) as http,
        ):
            Studio(http, browser).shoot("sign-in", "/sign-in")
        browser.close()


if __name__ == "__main__":
    main()
