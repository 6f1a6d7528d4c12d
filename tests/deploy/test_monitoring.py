"""The dashboard and the alert rules ask only for what a running API exports."""

import re
from pathlib import Path
from typing import get_args

import httpx
import promql_parser
import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobs.queue_values import SubmitRequest
from jobs.records import ErrorKind
from tests.api_servers import RunningApi
from tests.deploy.monitoring import ROOT, panels, queries, rules, selectors
from tests.servers import wait_until

#: What Prometheus itself knows of whom it scrapes.
OWN = {"up"}
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}


@pytest.fixture
def page(http: httpx.Client, api: RunningApi) -> str:
    """The metrics of an API that has seen some of everything."""
    request = SubmitRequest(
        job_id="j", tenant="t", engine_key="e", images=9, shard_images=3, spec_sha256="0" * 64
    )
    api.queue.submit(request)
    api.queue.heartbeat("w", {"engine_key": "e", "state": "idle"})
    api.queue.note_totals({f"{kind}:x": 1 for kind in ("images", "stage", "image", "work")})
    api.queue.note_totals({"stall:x": 1, "unit:x": 1})
    api.queue.note_pool({"slots": 1, "renderers": 1, "draining": 0})
    api.queue.scheduler_beat()
    http.get("/readyz")
    # The event was read, and the first answers are counted.
    wait_until(lambda: 'type="submit"' in http.get("/metrics").text, "the event")
    return http.get("/metrics").text


def exported(page: str) -> dict[str, set[str]]:
    """Every series' name, with its labels."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(page):
        for one in family.samples:
            found.setdefault(one.name, set()).update(one.labels)
    return found


def test_every_metric_that_is_asked_for_is_exported_with_its_labels(page: str) -> None:
    known = exported(page)
    asked = [one for query in queries() for one in selectors(query) if one.name not in OWN]
    assert len(asked) > 40
    for one in asked:
        assert one.name in known, f"{one.name} is asked for, and nobody exports it"
        for matcher in one.matchers.matchers:
            assert matcher.name in known[one.name], f"{one.name} has no label {matcher.name}"


def test_every_label_that_is_summed_by_is_exported(page: str) -> None:
    known = set().union(*exported(page).values())
    used = {
        label.strip()
        for query in queries()
        for labels in re.findall(r"\bby \(([^)]*)\)", query)
        for label in labels.split(",")
    }
    shown = {
        label
        for panel in panels()
        for target in panel["targets"]
        for label in re.findall(r"{{(\w+)}}", target["legendFormat"])
    }
    assert len(used) > 8
    assert used | shown <= known


def test_every_metric_is_in_the_documentation_and_on_the_dashboard(page: str) -> None:
    documented = (ROOT / "docs" / "operations.md").read_text("utf-8")
    shown = {
        one.name for panel in panels() for t in panel["targets"] for one in selectors(t["expr"])
    }
    for family in text_string_to_metric_families(page):
        names = {f"{family.name}{suffix}" for suffix in SUFFIXES[family.type]}
        if family.name.endswith("_created"):
            continue
        assert f"`{family.name}" in documented, family.name
        assert names & shown, f"{family.name} is on no panel"


def test_every_alert_has_a_page_in_the_runbook() -> None:
    assert len(rules()) > 10
    for rule in rules():
        file, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert anchor in anchors(ROOT / file), rule["alert"]
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_a_query_that_is_none_is_found() -> None:
    with pytest.raises(ValueError, match=r"."):
        selectors("sum(rate(a[5m])")
    (one,) = selectors('rate(made_up_total{a="b"}[$__rate_interval])')
    assert (one.name, one.matchers.matchers[0].name) == ("made_up_total", "a")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_images_fail_where_nobody_turned_them_away() -> None:
    """A job that keeps the better half of its pictures is no trouble; a filter that breaks is."""
    (rule,) = [one for one in rules() if one["alert"] == "FewstepImagesFail"]
    failed, every = selectors(rule["expr"])
    assert not every.matchers.matchers
    (matcher,) = failed.matchers.matchers
    assert matcher.op == promql_parser.MatchOp.NotRe
    left_out = [kind for kind in ("ok", *get_args(ErrorKind)) if re.fullmatch(matcher.value, kind)]
    assert left_out == ["ok", "rejected"]


def test_every_end_of_an_image_is_documented() -> None:
    documented = (ROOT / "docs" / "operations.md").read_text("utf-8")
    (line,) = [one for one in documented.splitlines() if "`fewstep_rendered_images_total`" in one]
    # Of a process that died nobody is left to count.
    kinds = {"ok", *get_args(ErrorKind)} - {"", "died"}
    assert {kind for kind in kinds if f"`{kind}`" not in line} == set()
