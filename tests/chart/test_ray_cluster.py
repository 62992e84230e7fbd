"""_ray-cluster.tpl: the head and the worker groups."""

from typing import Any

from tests.chart.render import CHAT, DOCS, EMBEDDER, ray_cluster, ray_container, render_chart, worker_group


def group(name: str, **entry: Any) -> dict[str, Any]:
    return worker_group(render_chart({"workerGroups": {name: entry}}), name)


def test_the_autoscaler_is_named_v2_and_confined() -> None:
    cluster = ray_cluster(render_chart())
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"] == {
        "version": "v2",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "temporary", "mountPath": "/tmp"}],
    }
    assert "temporary" in {volume["name"] for volume in cluster["headGroupSpec"]["template"]["spec"]["volumes"]}


def test_rays_own_interfaces_ask_for_the_charts_token() -> None:
    """KubeRay's own would be another one with each RayCluster; a mode that is left out leaves them open."""
    assert ray_cluster(render_chart())["authOptions"] == {"mode": "token", "secretName": "llm-serving-ray-token"}
    existing = {"security": {"ray": {"existingSecret": "our-ray-token"}}}
    assert ray_cluster(render_chart(existing))["authOptions"]["secretName"] == "our-ray-token"
    assert "authOptions" not in ray_cluster(render_chart({"security": {"ray": {"auth": "none"}}}))


def test_no_node_reads_its_logs_for_drivers() -> None:
    """KubeRay passes no "false" on."""
    cluster = ray_cluster(render_chart())
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert len(groups) > 1
    assert {group["rayStartParams"]["include-log-monitor"] for group in groups} == {"0"}


def test_the_head_runs_nothing_and_is_not_exposed() -> None:
    head = ray_cluster(render_chart())["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert head["serviceType"] == "ClusterIP"
    assert ray_container(head)["resources"] == {
        "requests": {"cpu": "4", "memory": "16Gi"},
        "limits": {"memory": "16Gi"},
    }


def test_the_heads_values_reach_it() -> None:
    values = {
        "head": {
            "resources": {"requests": {"cpu": "1"}},
            "nodeSelector": {"pool": "system"},
            "tolerations": [{"key": "system", "operator": "Exists"}],
            "podTemplate": {"spec": {"priorityClassName": "system"}},
        }
    }
    head = ray_cluster(render_chart(values))["headGroupSpec"]
    assert head["template"]["spec"]["nodeSelector"] == {"pool": "system"}
    assert head["template"]["spec"]["tolerations"] == [{"key": "system", "operator": "Exists"}]
    assert head["template"]["spec"]["priorityClassName"] == "system"
    assert ray_container(head)["resources"]["requests"] == {"cpu": "1", "memory": "16Gi"}


def test_the_declared_groups_are_all_there_and_idle_ones_cost_nothing() -> None:
    groups = ray_cluster(render_chart({"models": {"chat": CHAT}}))["workerGroupSpecs"]
    assert {one["groupName"]: (one["minReplicas"], one["maxReplicas"], one["labels"]) for one in groups} == {
        name: (least, most, {**labels, "llm-serving/worker-group": name})
        for name, least, most, labels in (
            ("cpu", 1, 4, {"llm-serving/role": "pipelines"}),
            ("l4", 0, 8, {"llm-serving/accelerator": "L4-x1"}),
            ("l40s", 0, 10, {"llm-serving/accelerator": "L40S-x1"}),
            ("l40s-x4", 0, 4, {"llm-serving/accelerator": "L40S-x4"}),
            ("a100-40g-x8", 0, 2, {"llm-serving/accelerator": "A100-40G-x8"}),
            ("h100-x8", 0, 2, {"llm-serving/accelerator": "H100-x8"}),
        )
    }


def test_an_added_group_comes_last_whatever_its_name() -> None:
    def names(**groups: Any) -> list[str]:
        cluster = ray_cluster(render_chart({"workerGroups": groups}))
        return [one["groupName"] for one in cluster["workerGroupSpecs"]]

    t4, a10g = {"accelerator": {"type": "T4"}}, {"accelerator": {"type": "A10G"}, "order": 2000}
    assert names(t4=t4) == [*names(), "t4"]
    assert names(t4=t4, a10g=a10g) == [*names(t4=t4), "a10g"]


def test_nothing_in_the_cluster_depends_on_what_is_served() -> None:
    models = {"chat": {**CHAT, "drainSeconds": 200, "env": {"A": "1"}}, "embedder": EMBEDDER}
    full = {"models": models, "rag": {"docs": DOCS}, "gateway": {"drainSeconds": 30, "cpus": 2}}
    assert ray_cluster(render_chart(full)) == ray_cluster(render_chart())


def test_a_new_release_of_the_chart_leaves_the_cluster_as_it_is() -> None:
    text = str(ray_cluster(render_chart()))
    assert "helm.sh/chart" not in text
    assert "app.kubernetes.io/version" not in text


def test_the_ray_container_is_the_first_whatever_is_overlaid() -> None:
    sidecar = {"spec": {"containers": [{"name": "a-sidecar", "image": "proxy:1"}]}}
    assert ray_container(group("l4", podTemplate=sidecar))["name"] == "ray"


def test_a_gpu_worker_takes_its_gpus_and_a_share_of_the_node() -> None:
    assert ray_container(group("l40s-x4"))["resources"] == {
        "requests": {"cpu": "12", "memory": "96Gi"},
        "limits": {"memory": "96Gi", "nvidia.com/gpu": "4"},
    }


def test_a_cpu_worker_has_a_core_for_each_of_its_count() -> None:
    assert ray_container(group("cpu-models", enabled=True))["resources"] == {
        "requests": {"cpu": "4", "memory": "16Gi"},
        "limits": {"memory": "16Gi"},
    }


def test_a_worker_for_models_and_pipelines_has_room_for_both() -> None:
    both = group("both", pipelines=True, accelerator={"type": "cpu", "count": 2})
    assert ray_container(both)["resources"]["requests"] == {"cpu": "5", "memory": "18Gi"}
    assert both["labels"] == {
        "llm-serving/role": "pipelines",
        "llm-serving/accelerator": "cpu",
        "llm-serving/worker-group": "both",
    }


def test_resources_that_are_set_stand() -> None:
    resources = {"requests": {"cpu": "7"}, "limits": {"nvidia.com/gpu": 1}}
    assert ray_container(group("l4", resources=resources))["resources"] == resources


def test_gpu_groups_select_their_nodes_and_tolerate_their_taint() -> None:
    pod = group("l40s-x4")["template"]["spec"]
    assert pod["nodeSelector"] == {
        "karpenter.k8s.aws/instance-gpu-name": "l40s",
        "karpenter.k8s.aws/instance-gpu-count": "4",
    }
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


def test_a_default_node_selector_is_nulled_for_another_cloud() -> None:
    selector = {
        "karpenter.k8s.aws/instance-gpu-name": None,
        "karpenter.k8s.aws/instance-gpu-count": None,
        "cloud.google.com/gke-accelerator": "nvidia-l4",
    }
    pod = group("l4", nodeSelector=selector)["template"]["spec"]
    assert pod["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}


def test_a_group_of_a_node_pool_takes_its_nodes_and_tolerates_its_taints() -> None:
    values = {
        "workerGroups": {"l4": {"nodePool": "gpu", "tolerations": [{"key": "mine", "operator": "Exists"}]}},
        "nodePools": {
            "gpu": {
                "nodeClass": "gpu",
                "taints": [
                    {"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"},
                    {"key": "ml", "value": "true", "effect": "NoExecute"},
                ],
            }
        },
    }
    pod = worker_group(render_chart(values), "l4")["template"]["spec"]
    assert pod["nodeSelector"]["karpenter.sh/nodepool"] == "gpu"
    assert pod["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "ml", "operator": "Exists", "effect": "NoExecute"},
        {"key": "mine", "operator": "Exists"},
    ]
