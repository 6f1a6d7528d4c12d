"""In a real browser: a job with filters and limits, raised, extended, dropped from, and undone."""

import re
from typing import Any

from playwright.sync_api import Page, expect

from tests.api_calls import submit
from tests.api_renderer import finish_dataset, render_shards
from tests.browser.conftest import Visit

ROWS = [{"prompt": f"a {label}", "label": label} for label in ("star", "ring", "star", "ring")]


def opened(page: Page, name: str) -> None:
    """Unfold a group of the form as a keyboard does."""
    page.locator("summary", has_text=name).focus()
    page.keyboard.press("Enter")


def complaints(visit: Visit) -> list[str]:
    """What the browser complained about, but for a preview that was cut off as the form left."""
    found = [text.partition(":")[0] for text in visit.site.complaints]
    visit.site.complaints.clear()
    return [text for text in found if text != "htmx"]


def the_job(visit: Visit) -> dict[str, Any]:
    (job,) = visit.http.get("/v1/jobs").json()["jobs"]
    return dict(job)


def test_filters_and_limits_are_asked_for_in_the_form(visit: Visit) -> None:
    page = visit.page
    page.goto("/new")
    page.get_by_label("Prompts", exact=True).fill("a red circle\na blue star")
    opened(page, "Filters")
    judge, near = (page.get_by_role("group", name=name) for name in ("agreement", "duplicate"))
    judge.get_by_label("A picture beyond the limit is").select_option("retry")
    judge.get_by_label("At least").fill("0.6")
    page.get_by_label("Accepted of each prompt").fill("3")
    expect(page.locator("#preview .big")).to_have_text("6")
    opened(page, "Limits")
    page.get_by_label("Images at most").fill("5")
    page.get_by_label("Deadline (UTC)").fill("2099-12-01T18:00:00")
    expect(page.locator("#preview .big")).to_have_text("5")
    near.get_by_label("A picture beyond the limit is").select_option("drop")
    near.get_by_label("At least").fill("99")
    expect(page.locator("#preview .wrong")).to_contain_text("the least distance in bits")
    page.get_by_role("button", name="Submit").click()

    expect(page.get_by_role("alert")).to_contain_text("the least distance in bits")
    wrong = near.get_by_label("A picture beyond the limit is")
    expect(wrong).to_be_focused()
    expect(wrong).to_have_attribute("aria-invalid", "true")
    expect(wrong).to_have_accessible_description(re.compile("least distance.*perceptual hash"))
    assert complaints(visit) == ["Failed to load resource"]
    near.get_by_label("At least").fill("3")
    expect(page.locator("#preview .big")).to_have_text("5")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#budget")).to_contain_text("0 of 5 images · until 1 Dec 2099")
    assert complaints(visit) == []
    job = the_job(visit)
    assert (job["images"], job["budget"]["max_images"]) == (5, 5)

    page.goto(f"/new?job={job['id']}&image=1")
    expect(page.locator("#preview .big")).to_have_text("1")
    judge, near = (page.get_by_role("group", name=name) for name in ("agreement", "duplicate"))
    expect(judge.get_by_label("A picture beyond the limit is")).to_have_value("retry")
    expect(judge.get_by_label("At least")).to_have_value("0.6")
    expect(near.get_by_label("At least")).to_have_value("3")
    expect(page.get_by_label("Images at most")).to_have_value("5")


def test_a_job_that_stopped_is_raised_extended_and_dropped_from(visit: Visit) -> None:
    page, api = visit.page, visit.site.api
    job = {"name": "Grown", "shard_images": 2, "max_images": 2}
    job_id = submit(visit.http, {"job": job, "prompts": ROWS})
    render_shards(api, job_id)
    page.goto(f"/jobs/{job_id}")
    finish_dataset(api, job_id)
    page.get_by_role("link", name="Raise the limit").click()
    extend = page.get_by_role("region", name="Extend")
    expect(extend.get_by_role("button", name="Extend")).to_be_disabled()
    expect(extend).to_contain_text("never rendered")
    limits = page.get_by_role("region", name="Limits")
    limits.get_by_label("Images at most").fill("")
    limits.get_by_role("button", name="Raise the limits").click()
    expect(page.locator("#progress .pill")).to_have_text("waiting")
    render_shards(api, job_id)
    finish_dataset(api, job_id)

    page.get_by_role("link", name="Extend").click()
    page.get_by_label("More of each prompt").fill("1")
    extend.get_by_role("button", name="Extend").click()
    expect(page).to_have_url(re.compile(f"{job_id}-r1$"))
    render_shards(api, f"{job_id}-r1")
    finish_dataset(api, f"{job_id}-r1")
    page.get_by_role("link", name="The whole job").click()
    expect(page.locator("#progress")).to_contain_text("8 of 8 images")

    page.get_by_role("link", name="Drop").click()
    condition = page.get_by_label("Condition")
    condition.fill("label = ring")
    condition.press("Enter")
    look = page.locator("#look")
    expect(look.locator(".wrong")).to_be_visible()
    condition.fill("label = 'ring'")
    condition.press("Enter")
    expect(look).to_contain_text("4 of 8 images would go")
    expect(look.locator(".going li")).to_have_count(4)
    drop = look.get_by_role("button", name="Drop 4 images")
    page.once("dialog", lambda dialog: dialog.dismiss())
    drop.click()
    assert visit.http.get(f"/v1/jobs/{job_id}").json()["done"] == 8
    page.once("dialog", lambda dialog: dialog.accept())
    drop.click()
    expect(page.get_by_role("row", name="drop 2")).to_contain_text("label = 'ring'")
    assert visit.http.get(f"/v1/jobs/{job_id}").json()["done"] == 4
    page.get_by_role("button", name="Undo the drop").click()
    expect(page.get_by_role("row", name="undo of a drop 3")).to_be_visible()
    assert visit.http.get(f"/v1/jobs/{job_id}").json()["done"] == 8
    page.set_viewport_size({"width": 360, "height": 700})
    for path in (f"/jobs/{job_id}/change", f"/new?job={job_id}&image=0"):
        page.goto(path)
        for summary in page.locator("summary").all():
            summary.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
