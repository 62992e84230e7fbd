"""horizontalpodautoscaler.yaml: Kubernetes scales standalone models by what vLLM measures."""

from typing import Any

from tests.chart.render import CHAT, of_kind, render_chart, the


def rendered(standalone: dict[str, Any] | None = None, **entry: Any) -> list[dict[str, Any]]:
    return render_chart(
        {"models": {"chat": {**CHAT, "runtime": "standalone", **entry}}, "standalone": standalone or {}},
    )


def test_replicas_follow_requests_at_work_that_wait_and_the_kv_cache() -> None:
    objects = rendered(replicas={"min": 2, "max": 8}, maxOngoingRequests=64)
    spec = the(objects, "HorizontalPodAutoscaler")["spec"]
    assert spec["scaleTargetRef"]["name"] in of_kind(objects, "Deployment")
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 8)
    targets = {one["pods"]["metric"]["name"]: one["pods"]["target"]["averageValue"] for one in spec["metrics"]}
    # 3/4 of what a replica works on, as for one on Ray.
    assert targets == {
        "vllm_num_requests_running": "48",
        "vllm_num_requests_waiting": "4",
        "vllm_kv_cache_usage_perc": "0.8",
    }


def test_a_fixed_number_of_replicas_needs_none() -> None:
    assert not of_kind(rendered(replicas={"min": 2}), "HorizontalPodAutoscaler")


def test_models_on_ray_have_none() -> None:
    assert not of_kind(rendered(runtime="ray", replicas={"max": 4}), "HorizontalPodAutoscaler")


def test_keda_makes_its_own() -> None:
    keda = {"autoscaler": "keda", "prometheus": "http://prometheus:9090"}
    assert not of_kind(rendered(keda, replicas={"max": 4}), "HorizontalPodAutoscaler")
