"""scaledobject.yaml: KEDA scales standalone models by what Prometheus knows of vLLM."""

from typing import Any

from tests.chart.render import CHAT, of_kind, render_chart, the

KEDA = {"autoscaler": "keda", "prometheus": "http://prometheus:9090"}


def rendered(standalone: dict[str, Any], **entry: Any) -> list[dict[str, Any]]:
    return render_chart({"models": {"chat": {**CHAT, "runtime": "standalone", **entry}}, "standalone": standalone})


def test_replicas_follow_the_pods_own_metrics() -> None:
    objects = rendered(KEDA, replicas={"min": 1, "max": 4}, maxOngoingRequests=32)
    spec = the(objects, "ScaledObject")["spec"]
    assert spec["scaleTargetRef"]["name"] in of_kind(objects, "Deployment")
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (1, 4)
    triggers = {one["name"]: one["metadata"] for one in spec["triggers"]}
    assert triggers["num-requests-running"] == {
        "serverAddress": "http://prometheus:9090",
        "query": 'sum(vllm:num_requests_running{namespace="ray-system",pod=~"llm-serving-model-chat-.+"})',
        "threshold": "24",
    }
    assert {name: one["threshold"] for name, one in triggers.items()} == {
        "num-requests-running": "24",
        "num-requests-waiting": "4",
        "kv-cache-usage-perc": "0.8",
    }


def test_a_fixed_number_of_replicas_needs_none() -> None:
    assert not of_kind(rendered({"autoscaler": "keda"}, replicas={"min": 2}), "ScaledObject")


def test_the_hpa_needs_none() -> None:
    assert not of_kind(rendered({"autoscaler": "hpa"}, replicas={"max": 4}), "ScaledObject")
