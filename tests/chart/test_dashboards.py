import json
import re
from typing import Any

import pytest

from serve_apps.common import metrics
from tests.chart.render import CHART, of_kind, render_chart

FILES = sorted((CHART / "dashboards").glob("*.json"))

#: What Ray 2.60, vLLM 0.29 and dcgm-exporter export, as far as the dashboards use it; seen in scrapes.
UPSTREAM = {
    "DCGM_FI_DEV_GPU_UTIL",
    "ray_node_gpus_utilization",
    "ray_serve_autoscaling_target_replicas",
    "ray_serve_deployment_processing_latency_ms_bucket",
    "ray_serve_deployment_queued_queries",
    "ray_serve_deployment_request_counter_total",
    "ray_vllm_generation_tokens_total",
    "ray_vllm_kv_cache_usage_perc",
    "ray_vllm_num_requests_running",
    "ray_vllm_num_requests_waiting",
    "ray_vllm_prompt_tokens_total",
}


def own_series() -> set[str]:
    """Every series of the applications, as PromQL names it."""
    return {
        metric.series + suffix
        for metric in metrics.ALL
        for suffix in (("_bucket", "_sum", "_count") if metric.kind == "Histogram" else ("",))
    }


def panels(dashboard: dict[str, Any]) -> dict[str, list[str]]:
    """The expressions of each panel, by title."""
    return {panel["title"]: [target["expr"] for target in panel["targets"]] for panel in dashboard["panels"]}


def test_there_are_none_unless_enabled() -> None:
    assert of_kind(render_chart(), "ConfigMap") == {}


def test_each_file_becomes_a_config_map_that_grafanas_sidecar_finds() -> None:
    found = of_kind(render_chart({"monitoring": {"dashboards": {"enabled": True}}}), "ConfigMap")
    assert set(found) == {f"llm-serving-dashboard-{file.stem}" for file in FILES}
    for file in FILES:
        config_map = found[f"llm-serving-dashboard-{file.stem}"]
        assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert json.loads(config_map["data"][f"llm-serving-{file.name}"]) == json.loads(file.read_text())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_metric_in_a_panel_exists(file: Any) -> None:
    for title, expressions in panels(json.loads(file.read_text())).items():
        for expression in expressions:
            series = set(re.findall(r"\b(?:ray|DCGM)_\w+", expression)) - {"ray_io_cluster"}
            assert series, title
            assert series <= UPSTREAM | own_series(), title


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_dashboard_can_be_imported_as_it_is(file: Any) -> None:
    dashboard = json.loads(file.read_text())
    assert dashboard["uid"] == f"llm-serving-{file.stem}"
    assert "id" not in dashboard
    assert "datasource" in {variable["name"] for variable in dashboard["templating"]["list"]}
    for panel in dashboard["panels"]:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["description"]


@pytest.mark.parametrize("app", ["rag", "agent"])
def test_everything_that_pipelines_and_agents_report_is_in_their_dashboard(app: str) -> None:
    shown = (CHART / "dashboards" / f"{app}.json").read_text()
    reported = [metric.series for metric in metrics.ALL if metric.name.startswith(f"llm_{app}_")]
    assert reported
    assert [series for series in reported if series not in shown] == []


def test_the_overview_opens_with_the_four_panels_asked_for() -> None:
    overview = json.loads((CHART / "dashboards" / "overview.json").read_text())
    assert list(panels(overview))[:4] == [
        "Request rate by deployment",
        "P99 latency by deployment",
        "Queue depth by deployment",
        "GPU utilisation by pod",
    ]
