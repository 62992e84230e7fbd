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
    "autoscaler_active_nodes",
    "autoscaler_pending_nodes",
    "ray_node_cpu_utilization",
    "ray_node_gpus_utilization",
    "ray_node_gram_available",
    "ray_node_gram_used",
    "ray_node_mem_total",
    "ray_node_mem_used",
    "ray_resources",
    "ray_serve_autoscaling_desired_replicas",
    "ray_serve_autoscaling_target_replicas",
    "ray_serve_autoscaling_total_requests",
    "ray_serve_deployment_processing_latency_ms_bucket",
    "ray_serve_deployment_queued_queries",
    "ray_serve_deployment_request_counter_total",
    "ray_serve_health_check_failures_total",
    "ray_serve_replica_startup_latency_ms_count",
    "ray_serve_replica_startup_latency_ms_sum",
    "ray_vllm_generation_tokens_total",
    "ray_vllm_kv_cache_usage_perc",
    "ray_vllm_num_requests_running",
    "ray_vllm_num_requests_waiting",
    "ray_vllm_prompt_tokens_total",
}
#: What vLLM 0.29 exports, on Ray as ray_vllm_…, of a standalone model as vllm:…
VLLM = {
    "generation_tokens_total",
    "inter_token_latency_seconds_bucket",
    "kv_cache_usage_perc",
    "num_preemptions_total",
    "num_requests_running",
    "num_requests_waiting",
    "prefix_cache_hits_total",
    "prefix_cache_queries_total",
    "prompt_tokens_total",
    "request_decode_time_seconds_bucket",
    "request_generation_tokens_bucket",
    "request_prefill_time_seconds_bucket",
    "request_prompt_tokens_bucket",
    "request_queue_time_seconds_bucket",
    "request_success_total",
    "time_to_first_token_seconds_bucket",
}
#: What Karpenter 1.14 exports (its pkg/metrics and pkg/controllers/metrics/nodepool).
KARPENTER = {
    "karpenter_nodeclaims_created_total",
    "karpenter_nodeclaims_disrupted_total",
    "karpenter_nodepools_limit",
    "karpenter_nodepools_usage",
}
#: How the engines' dashboard selects both.
OF_BOTH = re.compile(r'__name__=~"\(ray_vllm_\|vllm:\)(\w+)"')


def own_series() -> set[str]:
    """Every series of the applications, as PromQL names it."""
    return {
        metric.series + suffix
        for metric in metrics.ALL
        for suffix in (("_bucket", "_sum", "_count") if metric.kind == "Histogram" else ("",))
    }


def panels(dashboard: dict[str, Any]) -> dict[str, list[str]]:
    """The expressions of each panel, by title."""
    return {
        panel["title"]: [target["expr"] for target in panel["targets"]]
        for panel in dashboard["panels"]
        if panel["type"] != "text"
    }


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
            engines = set(OF_BOTH.findall(expression))
            series = set(re.findall(r"\b(?:ray|DCGM|karpenter|autoscaler)_\w+", OF_BOTH.sub("", expression)))
            assert engines or series, title
            assert engines <= VLLM, title
            assert series - {"ray_io_cluster"} <= UPSTREAM | KARPENTER | own_series(), title


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_dashboard_can_be_imported_as_it_is(file: Any) -> None:
    dashboard = json.loads(file.read_text())
    assert dashboard["uid"] == f"llm-serving-{file.stem}"
    assert "id" not in dashboard
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert "datasource" in variables
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in dashboard["panels"][1:]:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["description"]
        for target in panel["targets"]:
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= variables | {"__rate_interval"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_dashboard_opens_with_how_to_read_it(file: Any) -> None:
    dashboard = json.loads(file.read_text())
    (note,) = (panel for panel in dashboard["panels"] if panel["type"] == "text")
    assert dashboard["panels"][0] == note
    assert note["gridPos"] == {"x": 0, "y": 0, "w": 24, "h": 3}
    assert min(panel["gridPos"]["y"] for panel in dashboard["panels"][1:]) == 3
    assert len(note["options"]["content"]) > 100


def test_every_series_of_ours_is_in_a_dashboard() -> None:
    shown = "".join(file.read_text() for file in FILES)
    assert [metric.series for metric in metrics.ALL if metric.series not in shown] == []


@pytest.mark.parametrize("app", ["rag", "agent", "batch"])
def test_everything_that_an_application_reports_is_in_its_dashboard(app: str) -> None:
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
