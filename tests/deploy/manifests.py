"""The Kubernetes manifests as `kubectl kustomize` renders them, and what of them is looked at."""

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"


@cache
def rendered() -> tuple[dict[str, Any], ...]:
    """Every object of the example, which stands on the base."""
    kubectl = str(Path(sys.executable).with_name("kubectl"))
    done = subprocess.run(
        [kubectl, "kustomize", str(KUBERNETES / "example")],
        capture_output=True,
        text=True,
        check=True,
    )
    return tuple(yaml.safe_load_all(done.stdout))


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    """The objects of a kind by name."""
    return {one["metadata"]["name"]: one for one in rendered() if one["kind"] == kind}


def cluster() -> dict[str, Any]:
    """The RayCluster's specification."""
    (found,) = of_kind("RayCluster").values()
    return dict(found["spec"])


def pods() -> dict[str, dict[str, Any]]:
    """Pod templates by who they are, with the labels that KubeRay gives its own."""
    found = {
        name: one["spec"]["template"]
        for kind in ("Deployment", "StatefulSet")
        for name, one in of_kind(kind).items()
    }
    (name,) = of_kind("RayCluster")
    groups = {"head": cluster()["headGroupSpec"]}
    groups |= {f"worker-{one['groupName']}": one for one in cluster()["workerGroupSpecs"]}
    for group, spec in groups.items():
        labels = {"ray.io/cluster": name, "ray.io/node-type": group.partition("-")[0]}
        found[f"{name}-{group}"] = {**spec["template"], "metadata": {"labels": labels}}
    return found


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """All containers of a pod template, sidecars first."""
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]


def walk(value: object) -> Iterator[dict[str, Any]]:
    """Every mapping inside a value."""
    if isinstance(value, dict):
        yield value
    for one in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        yield from walk(one)
