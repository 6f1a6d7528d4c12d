"""The Kubernetes manifests: schemas, and that what they name is there."""

import re
import tomllib
from typing import Any

import kubernetes_validate

from jobs.api.app import create_app
from jobs.catalog import load_catalog
from jobs.settings import Settings
from tests.deploy.manifests import (
    KUBERNETES,
    ROOT,
    cluster,
    containers,
    of_kind,
    pods,
    rendered,
    walk,
)

VERSION = "1.37"
#: Secrets that nobody makes by hand: KubeRay's token, the certificate.
MADE = {"fewstep-ray", "fewstep-tls"}


def faults(one: dict[str, Any]) -> str:
    """What the schema of its kind says against an object; "" where nothing."""
    try:
        kubernetes_validate.validate(one, VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        return str(error)
    return ""


def test_every_object_fits_the_schema_of_its_kind() -> None:
    seen = [one for one in rendered() if one["kind"] != "RayCluster"]
    assert len(seen) > 12
    for one in seen:
        assert faults(one) == "", f"{one['kind']} {one['metadata']['name']}"
    # Pods of Ray are given to KubeRay, whose schema no package carries.
    for name, pod in pods().items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod["spec"]}
        assert faults(pod) == "", name
        assert faults({**pod, "spec": {**pod["spec"], "contaners": []}}) != ""


def test_every_pod_is_locked() -> None:
    for name, pod in pods().items():
        person = pod["spec"]["securityContext"]
        assert person["runAsNonRoot"] is True, name
        assert person["runAsUser"] > 0, name
        assert person["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for one in containers(pod):
            locks = one["securityContext"]
            assert locks["allowPrivilegeEscalation"] is False, one["name"]
            assert locks["capabilities"] == {"drop": ["ALL"]}, one["name"]
            assert one["resources"]["limits"]["memory"], one["name"]
            assert one["resources"]["requests"]["cpu"], one["name"]
            assert not one["image"].endswith(":latest"), one["name"]
            assert ":" in one["image"], one["name"]
    # The head's autoscaler talks to Kubernetes; nobody else does.
    tokens = {
        name for name, pod in pods().items() if "automountServiceAccountToken" not in pod["spec"]
    }
    assert tokens == {"fewstep-ray-head"}


def test_secrets_are_named_and_never_written() -> None:
    assert not of_kind("Secret")
    page = (ROOT / "deploy" / "README.md").read_text("utf-8")
    refs = {
        (one["secretKeyRef"]["name"], one["secretKeyRef"]["key"])
        for one in walk(list(rendered()))
        if "secretKeyRef" in one
    }
    assert len(refs) >= 5
    for name, key in refs:
        if name not in MADE:
            made = re.search(
                rf"create secret generic {name} (.*\\\n)*?.*--from-\w+=?\s?{key}=", page
            )
            assert made, f"deploy/README.md does not make {key} of {name}"
    # A value beside the name of a secret would be one in clear.
    for one in walk(list(rendered())):
        secret = re.search("PASSWORD|SECRET|ACCESS_KEY|TOKEN|REDIS_URL", str(one.get("name", "")))
        assert not (secret and "value" in one), one


def test_names_of_config_maps_volumes_and_accounts_are_there() -> None:
    maps = set(of_kind("ConfigMap"))
    named = {
        one[key]["name"]
        for one in walk([pod for pod in pods().values()])
        for key in ("configMap", "configMapRef")
        if key in one
    }
    assert named == maps
    for name, pod in pods().items():
        claims = [
            one["metadata"]["name"]
            for one in of_kind("StatefulSet")
            .get(name, {})
            .get("spec", {})
            .get("volumeClaimTemplates", ())
        ]
        volumes = {one["name"] for one in pod["spec"].get("volumes", ())} | set(claims)
        mounts = {one["name"] for each in containers(pod) for one in each["volumeMounts"]}
        assert mounts == volumes, name


def test_services_ingress_and_budgets_select_pods_that_are_there() -> None:
    labels = [pod["metadata"]["labels"] for pod in pods().values()]

    def found(selector: dict[str, str]) -> bool:
        return any(selector.items() <= one.items() for one in labels)

    services = of_kind("Service")
    for name, service in services.items():
        assert found(service["spec"]["selector"]), name
        (pod,) = [
            p
            for p in pods().values()
            if service["spec"]["selector"].items() <= p["metadata"]["labels"].items()
        ]
        ports = {port["name"] for one in containers(pod) for port in one["ports"]}
        assert {one["targetPort"] for one in service["spec"]["ports"]} <= ports
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        for name, one in of_kind(kind).items():
            selector = one["spec"].get("selector") or one["spec"].get("podSelector")
            assert found(selector.get("matchLabels", {})), f"{kind} {name}"
    (ingress,) = of_kind("Ingress").values()
    (rule,) = ingress["spec"]["rules"]
    backend = rule["http"]["paths"][0]["backend"]["service"]
    assert backend["port"]["name"] in {
        one["name"] for one in services[backend["name"]]["spec"]["ports"]
    }
    assert ingress["spec"]["tls"][0]["hosts"] == [rule["host"]]


def test_ray_has_a_token_no_dashboard_and_no_door_outside() -> None:
    assert cluster()["authOptions"] == {"mode": "token"}
    head = cluster()["headGroupSpec"]
    assert head["serviceType"] == "ClusterIP"
    assert head["rayStartParams"]["include-dashboard"] == "false"
    assert head["rayStartParams"]["dashboard-host"] == "127.0.0.1"
    # Only ports of Ray itself are known, and no Service or Ingress of ours leads to its pods.
    for name, pod in pods().items():
        if "ray.io/cluster" in pod["metadata"]["labels"]:
            ports = {p["containerPort"] for one in containers(pod) for p in one.get("ports", ())}
            assert ports <= {6379, 6380}, name
            assert not pod["spec"].get("hostNetwork"), name
    selected = [one["spec"]["selector"] for one in of_kind("Service").values()]
    assert not any("ray.io/cluster" in one for one in selected)
    policies = of_kind("NetworkPolicy")
    assert policies["nobody"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    (into,) = policies["fewstep-ray"]["spec"]["ingress"]
    assert into == {"from": [{"podSelector": {"matchLabels": {"ray.io/cluster": "fewstep-ray"}}}]}


def test_devices_come_from_none_and_leave_drained() -> None:
    settings = settings_of_manifests()
    assert cluster()["enableInTreeAutoscaling"] is True
    groups = cluster()["workerGroupSpecs"]
    for group in groups:
        assert (group["replicas"], group["minReplicas"]) == (0, 0)
        pod = group["template"]["spec"]
        (worker,) = pod["containers"]
        limits = worker["resources"]["limits"]
        assert limits[f"nvidia.com/{settings.renderer_device}"] == "1"
        command = worker["lifecycle"]["preStop"]["exec"]["command"]
        assert command[:3] == ["python", "-m", "scheduler.drain_node"]
        # Ray's own thirty seconds come after ours.
        assert pod["terminationGracePeriodSeconds"] >= float(command[-1]) + 30
    assert settings.max_renderers == sum(group["maxReplicas"] for group in groups)
    # A renderer whose node waits for its last unit must not be called an orphan.
    assert settings.orphan_ms > 320_000


def test_probes_ask_routes_that_exist() -> None:
    app = create_app(Settings())
    paths = set(app.openapi()["paths"])
    asked = {one["httpGet"]["path"] for one in walk(pods()["fewstep-api"]) if "httpGet" in one}
    assert asked == {"/healthz", "/readyz"}
    assert asked <= paths


def settings_of_manifests() -> Settings:
    """The settings that the pods get; raises where one is none."""
    (data,) = [one["data"] for name, one in of_kind("ConfigMap").items() if "settings" in name]
    fields = {name.removeprefix("FEWSTEP_").lower(): value for name, value in data.items()}
    assert set(fields) <= set(Settings.model_fields), data
    return Settings.model_validate(fields)


def test_settings_and_catalog_are_ones_that_the_code_reads() -> None:
    assert settings_of_manifests().keys == "required"
    catalog = load_catalog(KUBERNETES / "base" / "catalog.toml")
    ours = tomllib.loads((KUBERNETES / "base" / "catalog.toml").read_text("utf-8"))["models"]
    assert all(catalog.models[name].source.startswith("s3://") for name in ours)


def test_redis_keeps_a_file_and_evicts_nothing() -> None:
    lines = (KUBERNETES / "base" / "redis.conf").read_text("utf-8").splitlines()
    assert {"appendonly yes", "appendfsync everysec", "maxmemory-policy noeviction"} <= set(lines)
