"""daemonset.yaml: images that nodes have before a pod needs them."""

from typing import Any

import pytest

from tests.chart.render import RenderRefused, of_kind, ray_cluster, render_chart, worker_group

NEXT: dict[str, Any] = {"image": {"prePull": ["0.2.0"], "registry": "registry.example.com/ml"}}


def test_there_is_none_without_a_tag() -> None:
    assert of_kind(render_chart(), "DaemonSet") == {}
    assert "llm-serving-pull" not in of_kind(render_chart(), "NetworkPolicy")


def test_each_group_has_the_next_version_of_its_image_on_its_nodes() -> None:
    objects = render_chart(NEXT)
    sets = of_kind(objects, "DaemonSet")
    groups = {one["groupName"] for one in ray_cluster(objects)["workerGroupSpecs"]}
    assert sets.keys() == {f"llm-serving-pull-{group}" for group in groups}
    for group in groups:
        pod = sets[f"llm-serving-pull-{group}"]["spec"]["template"]["spec"]
        worker = worker_group(objects, group)["template"]["spec"]
        assert pod.get("nodeSelector") == worker.get("nodeSelector")
        assert pod.get("tolerations") == worker.get("tolerations")
        (container,) = pod["containers"]
        assert container["image"] == worker["containers"][0]["image"].rpartition(":")[0] + ":0.2.0"


def test_the_image_for_cpus_has_its_suffix() -> None:
    values = {"image": {"prePull": ["0.2.0"]}, "workerGroups": {"cpu-models": {"enabled": True}}}
    pulls = of_kind(render_chart(values), "DaemonSet")["llm-serving-pull-cpu-models"]
    (container,) = pulls["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "llm-serving/ray-vllm:0.2.0-cpu"


def test_it_takes_no_gpu_and_several_tags_are_several_containers() -> None:
    pulls = of_kind(render_chart({"image": {"prePull": ["0.2.0", "Test_1"]}}), "DaemonSet")["llm-serving-pull-l4"]
    containers = pulls["spec"]["template"]["spec"]["containers"]
    assert [one["name"] for one in containers] == ["tag-0-2-0", "tag-test-1"]
    assert all(one["resources"]["limits"] == {"memory": "32Mi"} for one in containers)


def test_the_running_cluster_is_left_as_it_is() -> None:
    registry = {"image": {"registry": "registry.example.com/ml"}}
    assert ray_cluster(render_chart(NEXT)) == ray_cluster(render_chart(registry))


def test_a_tag_is_a_tag() -> None:
    with pytest.raises(RenderRefused, match="/image/prePull/0"):
        render_chart({"image": {"prePull": ["ray-vllm:0.2.0"]}})
