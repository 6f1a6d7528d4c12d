"""`fewstep models` and its like: what can be rendered and judged, without a server."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fewstep.cli import app


def run(*words: str) -> str:
    result = CliRunner().invoke(app, ["models", *words])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_list_has_every_model() -> None:
    shown = run()
    for name in ("tiny", "sd15", "sdxl", "ssd-1b"):
        assert name in shown
    assert json.loads(run("--json"))["sdxl"]["parameters"]["unet"] == 2_567_463_684


def test_one_model_in_full() -> None:
    shown = run("sdxl")
    assert "196.75 M" in shown
    assert "6.94 GB in bfloat16" in shown
    assert "dmd2-sdxl" in shown
    assert "non-commercial, commercial use forbidden" in shown
    told = json.loads(run("sdxl", "--json"))
    assert told["footprint"]["adapter_parameters"] == 196_751_360
    assert told["accelerators"]["lightning-sdxl-4"]["negative_prompt"] is False
    assert told["accelerators"]["tcd-sdxl"]["draws_noise"] is True


def test_filters_tell_what_a_score_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "filters.toml"
    path.write_text('[filters.light]\nkind = "plugin"\nplugin = "secret:name"\nat_most = 0.5\n')
    monkeypatch.setenv("FEWSTEP_CATALOG", str(path))
    shown = CliRunner().invoke(app, ["filters"]).stdout
    for word in ("near_duplicate", ">=4", "keep/drop/retry", "any", "prompt_agreement", "<=0.5"):
        assert word in shown
    told = json.loads(CliRunner().invoke(app, ["filters", "--json"]).stdout)
    assert told["prompt_agreement"]["models"] == ["tiny"]
    assert (told["prompt_agreement"]["at_least"], told["prompt_agreement"]["size"]) == (1.0, 64)
    assert {"tiny", "sdxl"} <= set(told["near_duplicate"]["models"])
    assert told["light"]["policies"] == ["keep", "drop", "retry"]
    assert "secret" not in json.dumps(told)


def test_an_unknown_model() -> None:
    result = CliRunner().invoke(app, ["models", "sd99"])
    assert result.exit_code == 4
