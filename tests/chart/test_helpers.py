"""_helpers.tpl: names, labels, images, and the overlay."""

from typing import Any

import pytest

from tests.chart.render import of_kind, ray_cluster, ray_container, render_chart, the, worker_group


@pytest.mark.parametrize(
    ("release", "values", "name"),
    [
        ("llm-serving", {}, "llm-serving"),
        ("my-llm-serving", {}, "my-llm-serving"),
        ("prod", {}, "prod-llm-serving"),
        ("prod", {"nameOverride": "llm"}, "prod-llm"),
        ("prod", {"fullnameOverride": "chat"}, "chat"),
    ],
)
def test_the_name_comes_from_the_release_unless_overridden(release: str, values: dict[str, str], name: str) -> None:
    assert the(render_chart(values, release=release), "RayService")["metadata"]["name"] == name


def test_every_object_has_the_charts_labels() -> None:
    for one in render_chart({"monitoring": {"podMonitor": {"enabled": True}}}, release="prod"):
        assert (
            one["metadata"]["labels"].items()
            >= {
                "app.kubernetes.io/name": "llm-serving",
                "app.kubernetes.io/instance": "prod",
                "app.kubernetes.io/managed-by": "Helm",
            }.items()
        )


def test_images_are_tagged_with_the_app_version() -> None:
    objects = render_chart({"workerGroups": {"cpu-models": {"enabled": True}}})
    images = {name: ray_container(worker_group(objects, name))["image"] for name in ("cpu", "l4", "cpu-models")}
    assert images == {
        "cpu": "llm-serving/ray-serve:0.1.0",
        "l4": "llm-serving/ray-vllm:0.1.0",
        "cpu-models": "llm-serving/ray-vllm:0.1.0-cpu",
    }


def test_images_come_from_the_registry_and_tag_that_are_set() -> None:
    image = {"registry": "registry.example.com/ml", "vllm": {"repository": "vllm", "tag": "nightly"}}
    objects = render_chart({"image": {**image, "pullSecrets": [{"name": "registry"}], "pullPolicy": "Always"}})
    assert ray_container(worker_group(objects, "l4"))["image"] == "registry.example.com/ml/vllm:nightly"
    assert ray_container(worker_group(objects, "l4"))["imagePullPolicy"] == "Always"
    head = ray_cluster(objects)["headGroupSpec"]
    assert ray_container(head)["image"] == "registry.example.com/ml/llm-serving/ray-serve:0.1.0"
    assert head["template"]["spec"]["imagePullSecrets"] == [{"name": "registry"}]


def test_an_overlay_merges_maps_and_items_by_name_and_appends_the_rest() -> None:
    overlay: dict[str, Any] = {
        "metadata": {"labels": {"team": "search"}},
        "spec": {
            "priorityClassName": "serving",
            "containers": [
                {
                    "name": "ray",
                    "env": [{"name": "A", "value": "1"}, {"name": "RAY_USAGE_STATS_ENABLED", "value": "1"}],
                },
                {"name": "sidecar", "image": "proxy:1"},
            ],
            "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        },
    }
    template = worker_group(render_chart({"workerGroups": {"l4": {"podTemplate": overlay}}}), "l4")["template"]
    plain = worker_group(render_chart(), "l4")["template"]

    assert template["metadata"]["labels"] == {**plain["metadata"]["labels"], "team": "search"}
    assert template["spec"]["priorityClassName"] == "serving"
    assert template["spec"]["tolerations"] == [*plain["spec"]["tolerations"], *overlay["spec"]["tolerations"]]
    ray, sidecar = template["spec"]["containers"]
    assert sidecar == {"name": "sidecar", "image": "proxy:1"}
    environment = [
        {"name": "RAY_USAGE_STATS_ENABLED", "value": "1"} if one["name"] == "RAY_USAGE_STATS_ENABLED" else one
        for one in plain["spec"]["containers"][0]["env"]
    ]
    assert ray == {**plain["spec"]["containers"][0], "env": [*environment, {"name": "A", "value": "1"}]}


def test_null_in_an_overlay_removes() -> None:
    claim = {"name": "data", "emptyDir": None, "persistentVolumeClaim": {"claimName": "vectors"}}
    template = {"spec": {"volumes": [claim], "terminationGracePeriodSeconds": None}}
    pod = worker_group(render_chart({"workerGroups": {"cpu": {"podTemplate": template}}}), "cpu")["template"]["spec"]
    (data,) = (volume for volume in pod["volumes"] if volume["name"] == "data")
    assert data == {"name": "data", "persistentVolumeClaim": {"claimName": "vectors"}}
    assert "terminationGracePeriodSeconds" not in pod


def test_nothing_is_namespaced_by_hand() -> None:
    assert all("namespace" not in one["metadata"] for one in render_chart())
    assert set(of_kind(render_chart(), "Secret")) == {
        "llm-serving-api-keys",
        "llm-serving-initial-key",
        "llm-serving-internal",
        "llm-serving-ray-token",
    }
