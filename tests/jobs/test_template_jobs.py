"""Templates as jobs: submitted without a row written, rendered, fetched, and shown beforehand."""

import json
from collections import Counter
from pathlib import Path

import httpx
import pyarrow.dataset
import pytest
import redis
from typer.testing import CliRunner

from fewstep.cli import app
from jobs.client import Client
from jobs.errors import Conflict, InvalidInput
from jobs.extent import Extent, own_block
from jobs.fetch import fetch_dataset
from jobs.given_up import commit_given_up
from jobs.job import JobRequest
from jobs.layout import JobLayout
from jobs.retry import retry_failed
from jobs.rounds import Accepted
from jobs.rows import Row
from jobs.search import search_images
from jobs.shard_queue import ShardQueue
from jobs.spool import fetch_rows
from jobs.store import Store
from jobs.templates.expansion import Expansion, TemplateRequest
from jobs.templates.template import Template
from jobs.templates.template_file import read_template
from tests.api_servers import RunningApi
from tests.rendered_jobs import PREFIX, TENANT, Workshop

REQUEST = TemplateRequest(
    template="a {big|small} {{color}} {{shape}}",
    negative_prompt="{blur|noise}",
    mode="balanced",
    count=30,
    lists={"color": ("red", "blue", "green"), "shape": ("circle", "star")},
)
FILE = """
template = "a {big|small} {{color}} circle"
mode = "balanced"
count = 7
[lists]
color = "colors.txt"
"""


@pytest.fixture
def shop(client: redis.Redis, store: Store) -> Workshop:
    return Workshop(ShardQueue(client), store)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A template in a file, and a list in another beside it."""
    (tmp_path / "colors.txt").write_text("# warm\nred\n\n  orange \n", "utf-8")
    path = tmp_path / "circles.toml"
    path.write_text(FILE, "utf-8")
    return path


def test_a_template_becomes_a_dataset_with_its_choices_as_columns(
    shop: Workshop, tmp_path: Path
) -> None:
    template = Template.of(REQUEST)
    shop.broken = {3}
    job = shop.submit(template, repeats=2, shard_images=16)
    assert [found.key for found in shop.store.list(job.rows.prefix)] == [
        f"{job.rows.prefix}template.json"
    ]
    shop.render(job)
    shop.finish()

    layout = shop.layout(job)
    fetch_dataset(shop.store, layout, tmp_path)
    tables = [str(path) for path in sorted((tmp_path / "train").glob("*.parquet"))]
    rows = pyarrow.dataset.dataset(tables).to_table().to_pylist()
    assert len(rows) == job.images == 60
    for row in rows:
        expected = template.prompts.row(row["row"])
        assert (row["prompt"], row["negative_prompt"]) == (
            expected.prompt,
            expected.negative_prompt,
        )
        assert {name: row[name] for name in expected.extra} == expected.extra
    kept = TemplateRequest.model_validate_json((tmp_path / "template.json").read_text())
    assert kept == REQUEST


def test_who_walks_over_many_rows_reads_their_template_once(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading one of 100,000 values takes a second: not for every page, or image, anew."""
    job = shop.submit(Template.of(REQUEST.model_copy(update={"count": 3_500})), shard_images=100)
    read, get = Counter[str](), shop.store.get
    monkeypatch.setattr(shop.store, "get", lambda key: (read.update([key]), get(key))[1])
    template = JobLayout.template(job.rows.prefix)

    extent = Extent(job, [own_block(job)])
    assert search_images(shop.store, extent, "no such", first=0, limit=9) == ([], None)
    assert read.pop(template) == 1

    dead = {f"{n}-{n + 1}": "it died" for n in range(5)}
    assert commit_given_up(shop.store, Accepted(job), shop.layout(job), dead, 3) == 5
    assert read.pop(template) == 1

    shop.queue.state(job.id, "cancel")
    shop.finish()
    read.clear()
    asked = {"prefix": PREFIX, "tenant": TENANT, "job_id": job.id, "now_ms": 1_700_000_100_000}
    wish = {"idempotency_key": "key", "unfinished": True}
    assert retry_failed(shop.store, shop.queue, **asked, **wish).images == 3_500
    assert read.pop(template) == 1


def test_the_same_key_with_another_template_is_a_conflict(shop: Workshop) -> None:
    first = shop.submit(Template.of(REQUEST), key="k")
    assert shop.submit(Template.of(REQUEST), key="k") == first
    with pytest.raises(Conflict):
        shop.submit(Template.of(REQUEST.model_copy(update={"count": 31})), key="k")


def test_a_column_with_one_of_our_names_is_refused(shop: Workshop) -> None:
    request = TemplateRequest(template="a {{model}}", lists={"model": ("x",)})
    with pytest.raises(InvalidInput, match="'model' has the name"):
        shop.submit(Template.of(request))
    assert list(shop.store.list("")) == []


def test_rows_that_are_templates_become_rows(shop: Workshop) -> None:
    rows = [Row(prompt="a {red|blue} {{thing}}", extra={"thing": "car"}), Row(prompt="b")]
    job = shop.submit(rows, expand=Expansion())
    found = fetch_rows(shop.store, job, 0, job.rows.count)
    assert [row.prompt for row in found] == ["a red car", "a blue car", "b"]
    assert job.rows.columns == {"thing": "string", "choice_1": "string", "combination": "int"}


def test_without_expand_braces_are_text(shop: Workshop) -> None:
    job = shop.submit([Row(prompt="a {red|blue} {{thing}}")])
    assert fetch_rows(shop.store, job, 0, 1)[0].prompt == "a {red|blue} {{thing}}"


# ---- the API ----


def test_the_api_shows_any_rows_of_a_template_beforehand(api: RunningApi, file: Path) -> None:
    huge = TemplateRequest(
        template="a {{a}} {{b}} {{c}} {{d}}",
        lists={name: tuple(f"{name}{n}" for n in range(1_000)) for name in "abcd"},
        mode="balanced",
        count=10**9,
    )
    with Client(api.url) as client:
        far = client.dry_run(JobRequest(), huge, first=10**9 - 3)
        near = client.dry_run(JobRequest(), file)
        texts = client.dry_run(JobRequest(expand=Expansion()), ["a {red|blue} star", "b"])
    assert far.images == 10**9
    assert [row.prompt for row in far.preview] == [
        row.prompt for row in Template.of(huge).prompts.rows(10**9 - 3, 10**9)
    ]
    assert near.preview == tuple(Template.of(read_template(file)).prompts.rows(0, 7))
    assert [row.prompt for row in texts.preview] == ["a red star", "a blue star", "b"]
    assert not {one for one in api.written() if one.startswith("s3:")}


REFUSED = {
    "twice": ({"template": {"template": "a"}, "prompts": ["b"]}, "prompts", "twice"),
    "no object": ({"template": "a {b|c}"}, "template", "object"),
    "unknown field": ({"template": {"template": "a", "text": "b"}}, "template.text", ""),
    "no list": ({"template": {"template": "a {{b}}"}}, "template", "no list named 'b'"),
    "no count": ({"template": {"template": "a", "mode": "sampled"}}, "count", "how many"),
    "too few": ({"template": {"template": "a", "count": 2}}, "count", "2 rows of 1"),
    "expanded": ({"template": {"template": "a"}, "job": {"expand": {}}}, "expand", "itself"),
    "in a row": ({"prompts": ["a", "{b"], "job": {"expand": {}}}, "row 2, character 1", "never"),
    "half a pair": ({"template": {"template": "a\ud800"}}, "template", ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_api_refuses(api: RunningApi, name: str) -> None:
    body, where, what = REFUSED[name]
    before = api.written()
    for route in ("/v1/jobs", "/v1/jobs?dry_run=true"):
        headers = {"Content-Type": "application/json"}
        reply = httpx.post(
            f"{api.url}{route}", content=json.dumps(body), headers=headers, trust_env=False
        )
        assert reply.status_code in (400, 422), reply.text
        assert where in reply.json().get("where", "")
        assert what in reply.json()["detail"]
    assert api.written() == before


# ---- the command line ----


def test_preview_shows_rows_without_a_server(file: Path, tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["preview", str(file), "--first", "5", "--json"])
    assert shown.exit_code == 0, shown.output
    reply = json.loads(shown.stdout)
    assert (reply["count"], reply["combinations"]) == (7, 4)
    found = Template.of(read_template(file)).prompts
    assert reply["rows"] == [row.model_dump() for row in found.rows(5, 7)]

    (tmp_path / "rows.txt").write_text("{one|two} __color__ star\n", "utf-8")
    colors = f"color={tmp_path / 'colors.txt'}"
    words = ["preview", str(tmp_path / "rows.txt"), "--expand", "combinatorial", "--list", colors]
    table = CliRunner().invoke(app, words)
    assert table.exit_code == 0, table.output
    assert "two orange star" in table.stdout


WRONG = {
    "template = 1": "template",
    "template = ": "TOML",
    'template = "a"\ncount = 0': "count",
    'template = "a"\ntext = "b"': "text",
    'template = "a {{b}}"\nlists = {b = "gone.txt"}': "gone.txt",
    'template = "a {{b}}"\nlists = {b = 3}': "lists.b",
    'template = "a {{b}}"\nlists = {b = [3]}': "lists.b",
    'template = "a {b"': "character 3",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_file_says_where(tmp_path: Path, text: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text, "utf-8")
    shown = CliRunner().invoke(app, ["preview", str(path)])
    assert shown.exit_code == 2
    assert WRONG[text] in shown.output


@pytest.mark.parametrize("place", ["../outside.txt", "/etc/hostname", "folder", "none.txt"])
def test_a_list_s_file_lies_beside_its_template(tmp_path: Path, place: str) -> None:
    (tmp_path / "outside.txt").write_text("secret", "utf-8")
    home = tmp_path / "home"
    (home / "folder").mkdir(parents=True)
    text = f"template = 'a {{{{x}}}}'\n[lists]\nx = '{place}'\n"
    (home / "t.toml").write_text(text, "utf-8")
    with pytest.raises(InvalidInput, match="is no file beside the template"):
        read_template(home / "t.toml")
    (home / "t.toml").write_text("a = " + "[" * 5_000, "utf-8")
    with pytest.raises(InvalidInput, match="this is not TOML"):
        read_template(home / "t.toml")
