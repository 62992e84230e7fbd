"""The expressions of rendered dashboards and rules, and the selectors in them."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

#: For Grafana's window for rates, which is a few scrapes: some rounds of a proof's requests, also on a busy machine.
RATE_INTERVAL = "5m"


@dataclass(frozen=True)
class Expression:
    """One expression, and where it stands."""

    place: str
    """The dashboard or rule, and the panel."""
    promql: str


@dataclass(frozen=True)
class Selector:
    """What one expression selects of the series there are."""

    name: str
    """The metric's name, or the pattern of names."""
    text: str
    """The selector, as PromQL has it."""


def dashboards(objects: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Grafana's dashboards in rendered ConfigMaps."""
    return [
        json.loads(content)
        for one in objects
        if one["kind"] == "ConfigMap"
        for file, content in one["data"].items()
        if file.endswith(".json")
    ]


def groups(objects: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rule groups of rendered PrometheusRules."""
    return [group for one in objects if one["kind"] == "PrometheusRule" for group in one["spec"]["groups"]]


def of_panels(dashboard: dict[str, Any]) -> list[Expression]:
    """A dashboard's expressions, as Grafana asks for them when every variable is set to All."""
    return [
        Expression(f"{dashboard['title']}: {panel['title']}", filled(target["expr"], dashboard))
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    ]


def of_rules(group: dict[str, Any]) -> list[Expression]:
    """The expressions of a group's alerts."""
    return [Expression(rule["alert"], rule["expr"]) for rule in group["rules"]]


def filled(promql: str, dashboard: dict[str, Any]) -> str:
    """An expression of a dashboard with its variables set to All."""
    variables = {one["name"]: one["allValue"] for one in dashboard["templating"]["list"] if "allValue" in one}
    variables["__rate_interval"] = RATE_INTERVAL
    return re.sub(r"\$(\w+)", lambda name: variables[name[1]], promql)


def selectors(tree: Any) -> list[Selector]:
    """The selectors in an expression's tree, each once, in their order."""
    return list(dict.fromkeys(_selectors(tree)))


def _selectors(node: Any) -> Iterator[Selector]:
    if isinstance(node, list):
        for one in node:
            yield from _selectors(one)
    elif isinstance(node, dict):
        if node.get("type") in ("vectorSelector", "matrixSelector"):
            yield _selector(node["matchers"])
        else:
            yield from _selectors([*node.values()])


def _selector(matchers: list[dict[str, str]]) -> Selector:
    (name,) = (one for one in matchers if one["name"] == "__name__")
    plain = name["type"] == "=" and re.fullmatch(r"\w+", name["value"])
    inside = ",".join(
        f"{one['name']}{one['type']}{json.dumps(one['value'])}" for one in matchers if not plain or one is not name
    )
    return Selector(name["value"], (name["value"] if plain else "") + (f"{{{inside}}}" if inside else ""))
