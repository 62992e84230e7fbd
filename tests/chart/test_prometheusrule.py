"""prometheusrule.yaml and alerts/: what Prometheus tells somebody about, and where it says what to do."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from serve_apps.common import metrics
from tests.chart.render import CHART, REPOSITORY, of_kind, render_chart, the
from tools.gotools import binary

FILES = sorted((CHART / "alerts").glob("*.yaml"))
#: The labels of each series: the applications' own, and those that are used of Ray 2.60, vLLM 0.29, KubeRay 1.6 and
#: Karpenter 1.14.
LABELS = {
    **{metric.series: set(metric.tags) for metric in metrics.ALL},
    "ray_serve_application_status": {"application"},
    "ray_node_mem_total": {"RayNodeType"},
    "ray_serve_autoscaling_desired_replicas": {"application", "deployment"},
    "ray_serve_autoscaling_target_replicas": {"application", "deployment"},
    "ray_serve_health_check_failures_total": {"application", "deployment", "replica"},
    "ray_vllm_kv_cache_usage_perc": {"model_name"},
    "karpenter_nodepools_limit": {"nodepool", "resource_type"},
    "karpenter_nodepools_usage": {"nodepool", "resource_type"},
    "kuberay_service_condition_ready": {"name", "condition"},
    # Prometheus' own, with a label of the PodMonitor of standalone models; and every Python process'.
    "up": {"model"},
    "process_start_time_seconds": {"model"},
}
#: A series in an expression.
SERIES = re.compile(r"\b(?:(?:ray|kuberay|karpenter|process)_\w+|up\b)")
#: What a histogram's series end with.
SUFFIX = re.compile(r"_(bucket|count)$")
#: Labels that Prometheus and the PodMonitor add to every series.
SCRAPED = {"namespace", "ray_io_cluster"}


def alert(file: Path) -> dict[str, Any]:
    """The rule in a file."""
    rule: dict[str, Any] = yaml.safe_load(file.read_text())
    return rule


def rules(**alerts: Any) -> list[dict[str, Any]]:
    """The rules a release has."""
    found = the(render_chart({"monitoring": {"alerts": {"enabled": True, **alerts}}}), "PrometheusRule")
    (group,) = found["spec"]["groups"]
    return list(group["rules"])


def test_there_is_none_unless_enabled() -> None:
    assert of_kind(render_chart(), "PrometheusRule") == {}


def test_each_file_is_an_alert_of_its_name() -> None:
    assert [rule["alert"] for rule in rules()] == [file.stem for file in FILES]


def test_prometheus_gets_its_own_templates_as_they_are() -> None:
    for rule, file in zip(rules(), FILES, strict=True):
        annotations = {key: text for key, text in rule["annotations"].items() if key != "runbook_url"}
        assert {**rule, "annotations": annotations} == alert(file)


def test_prometheus_selects_it_by_the_labels_of_the_values() -> None:
    values = {"monitoring": {"alerts": {"enabled": True, "labels": {"release": "prometheus"}}}}
    assert the(render_chart(values), "PrometheusRule")["metadata"]["labels"]["release"] == "prometheus"


@pytest.mark.parametrize(
    ("runbooks", "begins"),
    [
        ("", "docs/runbooks/"),
        ("https://docs.example.com/runbooks", "https://docs.example.com/runbooks/"),
        ("https://docs.example.com/runbooks/", "https://docs.example.com/runbooks/"),
    ],
)
def test_an_alert_leads_to_its_runbook(runbooks: str, begins: str) -> None:
    assert [rule["annotations"]["runbook_url"] for rule in rules(runbooks=runbooks)] == [
        f"{begins}{file.stem}.md" for file in FILES
    ]


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    runbooks = sorted((REPOSITORY / "docs" / "runbooks").glob("*.md"))
    assert [runbook.stem for runbook in runbooks] == [file.stem for file in FILES]
    for runbook in runbooks:
        assert runbook.read_text().startswith(f"# {runbook.stem}\n")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_alert_is_about_series_and_labels_that_exist(file: Path) -> None:
    rule = alert(file)
    series = {SUFFIX.sub("", name) for name in SERIES.findall(rule["expr"])} - SCRAPED
    assert series
    assert series <= set(LABELS)
    labels = SCRAPED.union(*(LABELS[name] for name in series))
    (grouped,) = set(re.findall(r"by \(([^)]*)\)", rule["expr"]))
    assert set(grouped.split(", ")) <= labels
    told = re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))
    assert set(told) <= set(grouped.split(", "))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_alert_is_raised_when_it_should_be_and_not_otherwise(file: Path, tmp_path: Path) -> None:
    """Promtool runs alerts/<Alert>.yaml on the rules as they are rendered."""
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "llm-serving", "rules": rules()}]}))
    cases = tmp_path / file.name
    cases.write_text((Path(__file__).parent / "alerts" / file.name).read_text())
    done = subprocess.run([binary("promtool"), "test", "rules", cases], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stdout + done.stderr


def test_every_case_is_of_an_alert() -> None:
    assert sorted(file.name for file in (Path(__file__).parent / "alerts").iterdir()) == [one.name for one in FILES]


def test_runbooks_name_panels_that_exist() -> None:
    dashboards = [json.loads(file.read_text()) for file in (CHART / "dashboards").glob("*.json")]
    titles = {one["title"] for one in dashboards} | {panel["title"] for one in dashboards for panel in one["panels"]}
    named = {
        " ".join(name.split())
        for runbook in (REPOSITORY / "docs" / "runbooks").glob("*.md")
        for name in re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", runbook.read_text())
    }
    assert named
    assert named <= titles
