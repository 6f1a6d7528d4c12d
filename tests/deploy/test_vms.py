"""The cluster launcher's file, by Ray's own validator."""

import re
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.deploy.manifests import ROOT

FOLDER = ROOT / "deploy" / "vms"


def read() -> dict[str, Any]:
    return dict(yaml.safe_load((FOLDER / "cluster.yaml").read_text("utf-8")))


def test_ray_up_would_take_it() -> None:
    validate_config(prepare_config(read()))
    wrong = read()
    wrong["available_node_types"]["gpu"]["min_wrkers"] = 1
    with pytest.raises(jsonschema.ValidationError, match="min_wrkers"):
        validate_config(prepare_config(wrong))


def test_devices_come_from_none() -> None:
    file = read()
    gpu = file["available_node_types"]["gpu"]
    unit = (FOLDER / "fewstep-scheduler.service").read_text("utf-8")
    assert gpu["min_workers"] == 0
    assert f"FEWSTEP_MAX_RENDERERS={gpu['max_workers']}" in unit
    assert "FEWSTEP_RENDERER_DEVICE=gpu" in unit
    assert file["available_node_types"]["head"]["resources"]["CPU"] == 0


def test_ray_asks_for_a_token_and_has_no_dashboard() -> None:
    file = read()
    for kind in ("head", "worker"):
        starts = [c for c in file[f"{kind}_start_ray_commands"] if " start " in c]
        assert len([c for c in starts if "ray start" in c]) == 1
        assert "RAY_AUTH_MODE=token" in starts[0]
    head = " ".join(file["head_start_ray_commands"])
    assert "--include-dashboard=false" in head
    assert not re.search(r"--dashboard-host|--ray-client-server-port", head)
    assert not re.search(r"(?i)auth_token=|password", (FOLDER / "cluster.yaml").read_text("utf-8"))
