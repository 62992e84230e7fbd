"""prometheusrule.yaml and alerts/: what Prometheus tells somebody about, and where it says what to do."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from serve_apps.common import metrics
from tests.chart.render import CHART, REPOSITORY, of_kind, render_chart, the

FILES = sorted((CHART / "alerts").glob("*.yaml"))
SERIES = {metric.series: metric for metric in metrics.ALL}
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
    series = set(re.findall(r"\bray_llm_\w+", rule["expr"]))
    assert series
    assert series <= set(SERIES)
    labels = SCRAPED.union(*(SERIES[name].tags for name in series))
    (grouped,) = re.findall(r"by \(([^)]*)\)", rule["expr"])
    assert set(grouped.split(", ")) <= labels
    told = re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))
    assert set(told) <= set(grouped.split(", "))
