import json
from typing import Any

from tools.prometheus.expressions import Expression, Selector, dashboards, groups, of_panels, of_rules, selectors

DASHBOARD: dict[str, Any] = {
    "title": "LLM serving: overview",
    "templating": {"list": [{"name": "datasource"}, {"name": "cluster", "allValue": ".*"}]},
    "panels": [
        {"type": "text", "title": "How to read it"},
        {"title": "Requests", "targets": [{"expr": 'rate(asked{c=~"$cluster"}[$__rate_interval])'}, {"expr": "up"}]},
    ],
}


def test_rendered_dashboards_and_rules_are_found() -> None:
    group = {"name": "g", "rules": [{"alert": "Slow", "expr": "late > 1"}]}
    objects: list[dict[str, Any]] = [
        {"kind": "ConfigMap", "data": {"llm-serving-overview.json": json.dumps(DASHBOARD)}},
        {"kind": "ConfigMap", "data": {"redis.conf": "x"}},
        {"kind": "PrometheusRule", "spec": {"groups": [group]}},
        {"kind": "Service"},
    ]
    assert dashboards(objects) == [DASHBOARD]
    assert groups(objects) == [group]
    assert of_rules(group) == [Expression("Slow", "late > 1")]


def test_panels_are_asked_with_all_variables_filled_in() -> None:
    assert of_panels(DASHBOARD) == [
        Expression("LLM serving: overview: Requests", 'rate(asked{c=~".*"}[5m])'),
        Expression("LLM serving: overview: Requests", "up"),
    ]


def test_selectors_are_found_in_prometheus_own_tree() -> None:
    def matcher(name: str, value: str, kind: str = "=") -> dict[str, str]:
        return {"name": name, "value": value, "type": kind}

    instant = {"type": "vectorSelector", "matchers": [matcher("status", "5..", "=~"), matcher("__name__", "asked")]}
    by_pattern = {"type": "matrixSelector", "matchers": [matcher("__name__", "(ray_vllm_|vllm:)x", "=~")]}
    tree = {
        "type": "binaryExpr",
        "lhs": {"type": "call", "func": {"name": "rate"}, "args": [by_pattern]},
        "rhs": {"type": "aggregation", "expr": instant, "grouping": ["model"], "param": None},
        "matching": {"include": []},
    }
    assert selectors([tree, tree]) == [
        Selector("(ray_vllm_|vllm:)x", '{__name__=~"(ray_vllm_|vllm:)x"}'),
        Selector("asked", 'asked{status=~"5.."}'),
    ]
