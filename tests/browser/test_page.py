"""The page in a real browser: sign in, watch a sheet fill, and what a keyboard and a phone get."""

from playwright.sync_api import Page, expect

from jobs.page.visitor import COOKIE
from tests.api_calls import submit
from tests.api_renderer import finish_dataset, render_shards
from tests.browser.conftest import Site, Visit

SHARDS = {"job": {"name": "Eight", "shard_images": 2, "repeats": 4}, "prompts": ["a", "b"]}


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
    expect(page.locator("#cell-0 img")).to_have_js_property("complete", True)
    expect(page.locator("#cell-1 img")).to_have_js_property("naturalWidth", 64)

    render_shards(api, job_id)
    expect(made).to_have_count(8)
    finish_dataset(api, job_id)
    expect(page.locator("#progress .pill")).to_have_text("done")
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    assert page.evaluate("window.same"), "the page was loaded anew"
