"""What dashboard and alert rules ask of Prometheus, parsed by PromQL's own grammar."""

import json
from pathlib import Path
from typing import Any

import promql_parser
import yaml

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "deploy" / "monitoring"


def rules() -> list[dict[str, Any]]:
    """The alert rules."""
    (group,) = yaml.safe_load((MONITORING / "alerts.yaml").read_text("utf-8"))["groups"]
    return list(group["rules"])


def panels() -> list[dict[str, Any]]:
    """The panels of the dashboard that ask something."""
    board = json.loads((MONITORING / "dashboard.json").read_text("utf-8"))
    return [one for one in board["panels"] if one["type"] != "row"]


def queries() -> list[str]:
    """Every query of both; Grafana's own variable is given a value."""
    asked = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [*(rule["expr"] for rule in rules()), *asked]


def selectors(query: str) -> list[Any]:
    """The vector selectors of a query; raises ValueError where it is no PromQL."""
    found: list[Any] = []

    def look(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(query.replace("$__rate_interval", "5m")), look)
    return found
