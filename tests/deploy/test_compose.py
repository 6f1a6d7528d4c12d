"""The compose file: its schema, and that what it names is there."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from jobs.settings import Settings
from tests.deploy.manifests import ROOT

FOLDER = ROOT / "deploy" / "compose"
GIVEN = {"REDIS_PASSWORD": "r", "S3_ACCESS_KEY": "a", "S3_SECRET_KEY": "s"}
_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


def read(given: dict[str, str]) -> dict[str, Any]:
    """The file as compose reads it: merged, and with its variables in place."""

    def value(match: re.Match[str]) -> str:
        name, kind, word = match.groups()
        if name in given:
            return given[name]
        if kind != "-":
            raise LookupError(f"{name}: {word}")
        return str(word)

    text = (FOLDER / "compose.yaml").read_text("utf-8")
    return dict(yaml.safe_load(_VARIABLE.sub(value, text)))


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    return dict(read(GIVEN)["services"])


def parsed(file: dict[str, Any]) -> PyCompose:
    known = PyCompose.from_yaml(yaml.safe_dump(file))
    known.validate()
    return known


def test_it_fits_the_compose_specification() -> None:
    file = read(GIVEN)
    assert set(parsed(file).service_names()) == set(file["services"])
    file["services"]["api"]["prots"] = []
    with pytest.raises(ValueError, match="prots"):
        parsed(file)


def test_without_its_secrets_it_does_not_start() -> None:
    for name in GIVEN:
        with pytest.raises(LookupError, match=r"deploy/README\.md"):
            read({key: value for key, value in GIVEN.items() if key != name})
    page = (ROOT / "deploy" / "README.md").read_text("utf-8")
    assert all(f"{name}=" in page for name in (*GIVEN, "RAY_TOKEN"))


def test_only_the_api_is_published_and_on_loopback(services: dict[str, dict[str, Any]]) -> None:
    published = {name: one["ports"] for name, one in services.items() if "ports" in one}
    assert published == {"api": ["127.0.0.1:8700:8700"]}
    networks = read(GIVEN)["networks"]
    assert networks["inside"] == {"internal": True}
    for name, one in services.items():
        where = one.get("networks", [])
        assert where == ["inside"] or name == "api" or one.get("network_mode"), name


def test_everything_of_ours_is_locked(services: dict[str, dict[str, Any]]) -> None:
    ours = {name for name, one in services.items() if one["image"].startswith("fewstep:")}
    assert ours == {"api", "bucket", "ray-head", "ray-worker", "scheduler"}
    for name in ours | {"redis"}:
        one = services[name]
        assert one["cap_drop"] == ["ALL"], name
        assert one["read_only"] is True, name
        assert "no-new-privileges:true" in one["security_opt"], name
    assert not any(one.get("privileged") for one in services.values())


def test_settings_are_ones_that_the_code_reads(services: dict[str, dict[str, Any]]) -> None:
    for one in services.values():
        for name in one.get("environment", {}):
            if name.startswith("FEWSTEP_"):
                assert name.removeprefix("FEWSTEP_").lower() in Settings.model_fields, name


def test_what_it_names_is_there(services: dict[str, dict[str, Any]]) -> None:
    file = read(GIVEN)
    for one in services.values():
        for other in one.get("depends_on", {}):
            assert other in services
        for volume in one.get("volumes", ()):
            source = volume.partition(":")[0]
            there = (
                (FOLDER / source).exists() if source.startswith(".") else source in file["volumes"]
            )
            assert there, volume
        for secret in one.get("secrets", ()):
            assert secret in file["secrets"]
        if "build" in one:
            context = (FOLDER / one["build"]["context"]).resolve()
            assert (context / one["build"]["dockerfile"]).is_file()
            assert context == ROOT
    hosts = {"redis", "store", "ray-head"}
    assert hosts <= set(services)


def test_ray_asks_for_a_token_and_has_no_dashboard(services: dict[str, dict[str, Any]]) -> None:
    for name in ("ray-head", "ray-worker", "scheduler"):
        assert services[name]["environment"]["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray_token"
    assert "--include-dashboard=false" in services["ray-head"]["command"]
    # The mode itself is the image's.
    image = (ROOT / "deploy" / "image" / "Dockerfile").read_text("utf-8")
    assert "RAY_AUTH_MODE=token" in image
    assert read(GIVEN)["secrets"] == {"ray_token": {"environment": "RAY_TOKEN"}}
    assert ".env" in (FOLDER / ".gitignore").read_text("utf-8").split()


def test_the_files_of_the_folder_are_known() -> None:
    known = {Path("compose.yaml"), Path(".gitignore")}
    assert known <= {one.relative_to(FOLDER) for one in FOLDER.iterdir()}
