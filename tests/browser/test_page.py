"""The page in a real browser: from a key to a job, its pictures, and what went wrong with some."""

import re

import httpx
import pytest
from playwright.sync_api import Page, expect

from jobs.page.figures import POINTS, STAGES
from jobs.page.visitor import COOKIE
from tests.api_calls import submit
from tests.api_renderer import finish_dataset, render_shards
from tests.browser.conftest import Site, Visit
from tests.made_shards import MAKER
from tests.servers import wait_until

SHARDS = {"job": {"name": "Eight", "shard_images": 2, "repeats": 4}, "prompts": ["a", "b"]}
HOSTILE = '"><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>{{7*7}}'


def rendered(visit: Visit, body: dict[str, object], *, failed: tuple[int, ...] = ()) -> str:
    """Submit a job, render it whole, and finish it; its id."""
    job_id = submit(visit.http, body)
    render_shards(visit.site.api, job_id, failed=failed)
    finish_dataset(visit.site.api, job_id)
    return job_id


def test_a_wrong_key_says_so_and_a_good_one_signs_in(site: Site, stranger: Page) -> None:
    stranger.goto("/jobs/" + "a" * 26)
    expect(stranger).to_have_title("Sign in · fewstep")
    stranger.get_by_label("API key").fill(f"fewstep_{'a' * 12}_{'A' * 43}")
    stranger.keyboard.press("Enter")
    expect(stranger.get_by_role("alert")).to_contain_text("opens nothing here")

    key = site.key("ann")
    stranger.get_by_label("API key").fill(key)
    stranger.keyboard.press("Enter")
    # Back to what was asked for, which never was.
    expect(stranger.get_by_role("heading")).to_have_text("There is no such job")

    (cookie,) = stranger.context.cookies()
    assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == (COOKIE, True, "Strict")
    assert key[-43:] not in cookie["value"]
    stranger.goto("/")
    stranger.get_by_role("button", name="Sign out").click()
    stranger.goto("/")
    expect(stranger.get_by_label("API key")).to_be_visible()


def test_a_job_from_the_form_to_a_full_sheet(visit: Visit) -> None:
    page, api = visit.page, visit.site.api
    page.goto("/")
    page.get_by_role("link", name="Make the first job").click()
    page.get_by_label("Prompts", exact=True).fill("a red circle\na blue star")
    preview = page.locator("#preview")
    expect(preview).to_contain_text("8")
    expect(preview.locator(".expanded li")).to_have_text(["a red circle", "a blue star"])
    page.get_by_label("Steps").fill("90")
    expect(preview).to_contain_text("90 steps are outside what this recipe allows")
    page.get_by_label("Steps").fill("2")
    page.get_by_label("Name").fill("Mine")
    expect(preview).to_contain_text("images in 1 shard")
    page.get_by_role("button", name="Submit").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("Mine")
    expect(page.locator(".cell")).to_have_count(8)
    (job,) = visit.http.get("/v1/jobs").json()["jobs"]
    assert (job["name"], job["images"], job["recipe"]["steps"]) == ("Mine", 8, 2)
    # How fast it was is known by the device of the renderer, which says so itself.
    api.queue.heartbeat(MAKER.worker, {"device": MAKER.device})
    render_shards(api, job["id"])
    expect(page.locator(".cell img")).to_have_count(8)
    finish_dataset(api, job["id"])
    expect(page.locator("#progress .pill")).to_have_text("done")
    page.goto("/new")
    page.get_by_label("Prompts", exact=True).fill("one more")
    page.get_by_label("Steps").fill("2")
    # Measured by the job that is done: so many device-seconds at 0.5 an hour.
    expect(page.locator("#preview")).to_contain_text("about")
    expect(page.locator("#preview")).to_contain_text(re.compile(r"Price\s*0\.0"))


def test_a_form_that_is_wrong_keeps_what_was_written(visit: Visit) -> None:
    page = visit.page
    page.goto("/new")
    page.get_by_label("Prompts", exact=True).fill('{"prompt": "a", "seed": "x"}')
    page.get_by_label("Name").fill("kept")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("alert")).to_contain_text("prompts, line 1")
    expect(page.get_by_label("Name")).to_have_value("kept")
    # The refusal itself: the browser notes its status.
    assert [text for text in visit.site.complaints if "422" not in text] == []
    visit.site.complaints.clear()


def test_a_prompt_file_is_submitted(visit: Visit) -> None:
    page = visit.page
    page.goto("/new")
    lines = "".join(f"prompt {number}\n" for number in range(300)).encode()
    page.get_by_label("Or a file").set_input_files(
        {"name": "prompts.txt", "mimeType": "text/plain", "buffer": lines}
    )
    expect(page.locator("#preview .big")).to_have_text("1,200")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#progress")).to_contain_text("0 of 1,200 images")
    expect(page.locator(".cell")).to_have_count(96)


def test_a_sheet_fills_while_the_job_renders(visit: Visit) -> None:
    page, api = visit.page, visit.site.api
    job_id = submit(visit.http, SHARDS)
    page.goto("/")
    page.get_by_role("link", name="Eight: waiting").click()
    expect(page.locator(".cell")).to_have_count(8)
    made = page.locator(".cell img")
    expect(made).to_have_count(0)
    page.evaluate("window.same = true")

    render_shards(api, job_id, shards=1)
    expect(made).to_have_count(2)
    expect(page.locator("#progress")).to_contain_text("2 of 8 images")
    expect(page.locator("#cell-1 img")).to_have_js_property("naturalWidth", 64)

    render_shards(api, job_id)
    expect(made).to_have_count(8)
    finish_dataset(api, job_id)
    expect(page.locator("#progress .pill")).to_have_text("done")
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    assert page.evaluate("window.same"), "the page was loaded anew"


def test_pictures_are_searched_opened_and_walked_through(visit: Visit) -> None:
    page = visit.page
    prompts = ["a red circle", {"prompt": "a blue STAR", "negative_prompt": "blur", "label": "s"}]
    job_id = rendered(visit, {"job": {"repeats": 2}, "prompts": prompts})
    page.goto(f"/jobs/{job_id}/pictures")
    expect(page.locator(".frame")).to_have_count(4)
    page.keyboard.press("/")
    page.keyboard.type("star")
    page.keyboard.press("Enter")
    expect(page.locator(".frame")).to_have_count(2)
    page.locator(".frame a").first.click()

    expect(page.get_by_role("heading", level=1)).to_have_text("a blue STAR")
    item = visit.http.get(f"/v1/jobs/{job_id}/items").json()["items"][2]
    facts = page.locator(".facts")
    for text in (str(item["seed"]), item["sha256"], "label"):
        expect(facts).to_contain_text(text)
    command = page.locator("#command").inner_text()
    assert command.startswith('printf \'%s\\n\' \'{"prompt": "a blue STAR"')
    assert f'"seed": {item["seed"]}' in command
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy as command").click()
    expect(page.locator("#said")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == command

    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("heading", level=1)).to_have_text("a red circle")
    # The heading is there before the keys are heard.
    page.wait_for_load_state()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("heading", level=1)).to_have_text("a blue STAR")
    page.get_by_role("link", name="Make it again").click()
    expect(page.locator("#preview .expanded")).to_contain_text(f"seed {item['seed']}")
    page.go_back()
    page.keyboard.press("Escape")
    expect(page.locator(".frame")).to_have_count(4)


def test_a_job_is_paused_and_cancelled(visit: Visit) -> None:
    page, api = visit.page, visit.site.api
    job_id = submit(visit.http, SHARDS)
    render_shards(api, job_id, shards=2)
    page.goto(f"/jobs/{job_id}")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#progress .pill")).to_have_text("paused")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#progress .pill")).to_have_text("running")
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.get_by_role("button", name="Cancel").click()
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#progress .pill")).to_have_text("cancelling")
    finish_dataset(api, job_id)
    expect(page.locator("#progress .pill")).to_have_text("cancelled")
    expect(page.get_by_role("button", name="Render the rest")).to_be_visible()
    page.reload()
    expect(page.locator(".cell img")).to_have_count(4)


def test_what_failed_says_why_and_is_tried_again(visit: Visit) -> None:
    page = visit.page
    job_id = rendered(visit, SHARDS, failed=(1, 5))
    page.goto(f"/jobs/{job_id}")
    page.get_by_role("link", name="2 failed", exact=True).click()
    expect(page.locator(".failure")).to_have_count(2)
    expect(page.locator(".failure").first).to_contain_text("not a number")
    page.get_by_role("button", name="Retry 2 failed").click()
    expect(page).to_have_url(re.compile(f"{job_id}-r1$"))
    expect(page.locator("#progress")).to_contain_text("0 of 2 images")
    expect(page.locator(".cell .edge")).to_have_text(["1", "5"])


def test_timing_names_the_bottleneck_and_draws_it(visit: Visit) -> None:
    page = visit.page
    job_id = rendered(visit, SHARDS)
    timing = visit.http.get(f"/v1/jobs/{job_id}/timing").json()
    page.goto(f"/jobs/{job_id}/timing")
    says = timing["bottleneck"]["says"]
    expect(page.locator(".verdict")).to_contain_text(says[1:])
    rows = page.locator(".stages tbody tr")
    expect(rows).to_have_count(6)
    widths = [float(one.get_attribute("width") or 0) for one in page.locator(".track rect").all()]
    means = [timing["stages"][name]["sum_ms"] / 8 for name in STAGES]
    assert widths == pytest.approx([1000 * mean / max(means) for mean in means], abs=3)
    points = page.locator(".curve .line").get_attribute("points") or ""
    assert len(points.split()) == POINTS


def test_coverage_grows_while_the_job_renders(visit: Visit) -> None:
    page = visit.page
    rows = [{"prompt": "a", "label": label} for label in ("star", "star", "ring", "ring")]
    body = {"job": {"name": "labelled", "shard_images": 2}, "prompts": rows}
    job_id = submit(visit.http, body)
    page.goto(f"/jobs/{job_id}")
    page.get_by_role("link", name="Coverage").click()
    expect(page.locator("#made")).to_have_text("0")
    render_shards(visit.site.api, job_id, shards=1, failed=(1,))
    expect(page.locator("#made")).to_have_text("1")
    line = page.get_by_role("row", name="star")
    expect(line.get_by_role("cell").nth(1)).to_have_text("1")
    expect(line.get_by_role("cell").nth(2)).to_have_text("2")
    expect(page.get_by_role("row", name="not a number")).to_be_visible()
    page.get_by_role("link", name="Shards").click()
    expect(page.locator(".shard img")).to_have_count(1)
    expect(page.locator(".shard")).to_contain_text("1 failed")
    wait_until(
        lambda: page.locator(".shard img").evaluate("one => one.naturalWidth") > 100, "the sheet"
    )


def test_the_cluster_shows_who_renders(visit: Visit) -> None:
    page, queue = visit.page, visit.site.api.queue
    about = {"state": "rendering", "engine": "tiny + lcm-tiny", "busy": "0.93", "memory": "2500000"}
    queue.heartbeat("renderer-x.1", about | {"engine_key": "e", "images": "1234", "device": "cpu"})
    queue.note_pool_change("started", "renderer-x")
    queue.note_pool_change("started", "renderer-x")
    page.goto("/cluster")
    card = page.locator(".card")
    for text in ("tiny + lcm-tiny", "rendering", "93 %", "2.5 MB", "1,234", "cpu"):
        expect(card).to_contain_text(text)
    expect(page.locator(".changes li")).to_have_count(1)
    queue.leave("renderer-x.1")
    expect(page.locator(".card")).to_have_count(0)


def test_hostile_text_is_shown_and_does_nothing(visit: Visit) -> None:
    page = visit.page
    row = {"prompt": HOSTILE, "negative_prompt": HOSTILE, "label": HOSTILE}
    body = {"job": {"name": HOSTILE, "repeats": 2}, "prompts": [row]}
    job_id = rendered(visit, body, failed=(1,))
    places = {
        "/": ".name",
        f"/jobs/{job_id}": "h1",
        f"/jobs/{job_id}/pictures": ".prompt",
        f"/jobs/{job_id}/pictures?prompt=%3Cimg": "#range",
        f"/jobs/{job_id}/pictures/0": "h1",
        f"/jobs/{job_id}/failed": ".prompt-line",
        f"/new?job={job_id}&image=0": ".expanded",
    }
    for path, place in places.items():
        page.goto(path)
        text = "<img" if "prompt=" in path else HOSTILE
        expect(page.locator(place).first).to_contain_text(text)
        assert page.evaluate("window.hacked === undefined"), path
        assert page.locator("img[src=x]").count() == 0


def test_a_hundred_thousand_images_are_as_light_as_a_hundred(visit: Visit) -> None:
    page = visit.page
    body = {"job": {"repeats": 50_000, "shard_images": 100}, "prompts": ["a", "b"]}
    job_id = submit(visit.http, body)
    render_shards(visit.site.api, job_id, shards=1)
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(request.url))
    page.goto(f"/jobs/{job_id}/pictures")
    expect(page.locator(".frame")).to_have_count(60)
    expect(page.locator("#range")).to_have_text("0 – 59 of 100,000")
    page.get_by_placeholder("Image").fill("99990")
    page.get_by_role("button", name="Go").click()
    expect(page.locator(".frame")).to_have_count(10)
    page.goto(f"/jobs/{job_id}/pictures?prompt=b")
    expect(page.locator(".frame")).to_have_count(60)
    page.goto(f"/jobs/{job_id}")
    expect(page.locator(".cell")).to_have_count(96)
    expect(page.locator(".cell img")).to_have_count(1)
    assert page.locator("*").count() < 600
    assert len([url for url in fetched if url.endswith("/thumb")]) <= 61
    assert not [url for url in fetched if url.endswith("/file")]


def test_everything_is_reached_by_keyboard(visit: Visit) -> None:
    page = visit.page
    rendered(visit, SHARDS)
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    for _ in range(4):
        page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Eight: done")).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs/*")
    # The page's script takes keys, and is there when all has been loaded.
    page.wait_for_load_state("load")
    page.locator(".cell a").first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#cell-1 a")).to_be_focused()
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#cell-0 a")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("a")


def test_no_page_is_wider_than_a_phone(visit: Visit) -> None:
    page = visit.page
    page.set_viewport_size({"width": 360, "height": 700})
    row = {"prompt": "y" * 400, "label": "z" * 90, "other": "w" * 90}
    long = {"job": {"name": "x" * 120, "repeats": 4}, "prompts": [row]}
    job_id = rendered(visit, long, failed=(2,))
    job = f"/jobs/{job_id}"
    paths = ["/", job, f"{job}/pictures", f"{job}/pictures/0", f"{job}/failed", f"{job}/timing"]
    for path in (*paths, f"{job}/coverage", f"{job}/shards", "/new", "/cluster"):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path


def test_light_and_dark_are_the_readers_choice(visit: Visit) -> None:
    brightness = {}
    for scheme in ("light", "dark"):
        visit.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        visit.page.goto("/")
        for place in ("body", "h1"):
            name = "backgroundColor" if place == "body" else "color"
            found = visit.page.locator(place).evaluate(f"one => getComputedStyle(one).{name}")
            brightness[scheme, place] = sum(map(int, re.findall(r"\d+", found)[:3])) / 765
    assert brightness["light", "body"] > 0.9 > 0.2 > brightness["light", "h1"]
    assert brightness["dark", "body"] < 0.2 < 0.9 < brightness["dark", "h1"]


def test_the_browser_would_tell_of_a_broken_policy(visit: Visit) -> None:
    """The guard behind all tests above: an inline script is refused, and that is noticed."""
    visit.page.goto("/")
    visit.page.evaluate(
        "() => { const s = document.createElement('script');"
        " s.textContent = 'window.hacked=1'; document.body.append(s); }"
    )
    assert visit.page.evaluate("window.hacked === undefined")
    (said,) = visit.site.complaints
    assert "Content Security Policy" in said
    visit.site.complaints.clear()


def test_a_stranger_gets_no_picture(visit: Visit) -> None:
    job_id = rendered(visit, SHARDS)
    with httpx.Client(base_url=visit.site.url, trust_env=False, timeout=60) as http:
        for what in ("cover", "pictures/0/thumb", "pictures/0/file", "live"):
            assert http.get(f"/jobs/{job_id}/{what}").status_code == 303
