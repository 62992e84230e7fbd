from typing import Any

import pytest

from tests.chart.pods import pods
from tests.chart.render import CHAT, of_kind, render_chart

NO_GROUPS = dict.fromkeys(("l4", "l40s", "l40s-x4", "a100-40g-x8", "h100-x8"))


def budgets(values: dict[str, Any] | None = None) -> dict[str, int]:
    """How many pods each budget keeps."""
    found = of_kind(render_chart(values), "PodDisruptionBudget")
    return {name: one["spec"]["minAvailable"] for name, one in found.items()}


def test_head_and_every_group_have_one() -> None:
    assert budgets() == {
        "llm-serving-head": 1,
        **{f"llm-serving-worker-{name}": 1 for name in ("cpu", *NO_GROUPS)},
    }


def test_so_does_milvus() -> None:
    assert budgets({"milvus": {"enabled": True}})["llm-serving-milvus"] == 1
    assert "llm-serving-milvus" not in budgets({"milvus": {"enabled": True, "minAvailable": 0}})
    assert "llm-serving-milvus" not in budgets({"milvus": {"uri": "http://milvus:19530"}})


def test_so_does_redis() -> None:
    assert budgets({"redis": {"enabled": True}})["llm-serving-redis"] == 1
    assert "llm-serving-redis" not in budgets({"redis": {"address": "redis:6379"}})


@pytest.mark.parametrize(("least", "kept"), [(0, 1), (1, 1), (2, 1), (3, 2), (8, 7)])
def test_of_a_group_one_worker_may_go_at_a_time_and_the_last_may_not(least: int, kept: int) -> None:
    values = {"workerGroups": {"cpu": {"minReplicas": least, "maxReplicas": 8}}}
    assert budgets(values)["llm-serving-worker-cpu"] == kept


@pytest.mark.parametrize(("least", "kept"), [(1, 1), (2, 1), (4, 3)])
def test_so_of_a_standalone_model(least: int, kept: int) -> None:
    model = {**CHAT, "runtime": "standalone", "replicas": {"min": least, "max": 8}}
    assert budgets({"models": {"chat": model}})["llm-serving-model-chat"] == kept


def test_what_is_set_stands_and_nothing_is_kept_without_a_budget() -> None:
    values: dict[str, Any] = {
        "head": {"minAvailable": 0},
        "redis": {"enabled": True, "minAvailable": 0},
        "workerGroups": {**NO_GROUPS, "cpu": {"minAvailable": 2}},
    }
    assert budgets(values) == {"llm-serving-worker-cpu": 2}
    values["workerGroups"]["cpu"] = {"minAvailable": 0}
    assert budgets(values) == {}


def test_each_selects_its_own_pods_and_only_the_releases() -> None:
    models = {name: {**CHAT, "runtime": "standalone"} for name in ("chat", "other")}
    values = {"redis": {"enabled": True}, "milvus": {"enabled": True}, "models": models}
    objects = render_chart(values, release="prod")
    labels = {name: pod["metadata"]["labels"] for name, pod in pods(objects).items()}
    selected = {
        name: {pod for pod, its in labels.items() if one["spec"]["selector"]["matchLabels"].items() <= its.items()}
        for name, one in of_kind(objects, "PodDisruptionBudget").items()
    }
    assert selected == {
        "prod-llm-serving-head": {"head"},
        "prod-llm-serving-redis": {"prod-llm-serving-redis"},
        "prod-llm-serving-milvus": {"prod-llm-serving-milvus"},
        **{f"prod-llm-serving-model-{name}": {f"prod-llm-serving-model-{name}"} for name in models},
        **{f"prod-llm-serving-worker-{name}": {name} for name in ("cpu", *NO_GROUPS)},
    }
    for one in of_kind(objects, "PodDisruptionBudget").values():
        assert one["spec"]["selector"]["matchLabels"]["app.kubernetes.io/instance"] == "prod"


def test_a_worker_that_serves_nothing_may_always_go_and_no_budget_counts_what_may_go() -> None:
    """Kubernetes needs a scale for that, which a RayCluster does not have: such a budget lets nothing go, ever."""
    for one in of_kind(render_chart(), "PodDisruptionBudget").values():
        assert one["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        assert isinstance(one["spec"]["minAvailable"], int)
        assert "maxUnavailable" not in one["spec"]
