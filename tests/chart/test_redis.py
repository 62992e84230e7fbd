"""redis.yaml and what leads to it: where the head keeps what it knows."""

import base64
from pathlib import Path
from typing import Any

import yaml

from tests.chart.render import CHART, helm, of_kind, ray_cluster, render_chart, the
from tools.kube_apiserver import ApiServer

INSTALLED = {"redis": {"enabled": True}}
NAME = "llm-serving-redis"


def secret(objects: list[dict[str, Any]]) -> dict[str, str]:
    """The Secret of the installed Redis, decoded."""
    data = of_kind(objects, "Secret")[NAME]["data"]
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def pod(values: dict[str, Any] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = the(render_chart(values or INSTALLED), "StatefulSet")["spec"]["template"]
    return found


def test_without_redis_there_is_nothing_of_it() -> None:
    rendered = render_chart()
    assert of_kind(rendered, "StatefulSet") == of_kind(rendered, "Service") == {}
    assert "gcsFaultToleranceOptions" not in ray_cluster(rendered)


def test_the_head_finds_the_installed_one_and_its_password() -> None:
    rendered = render_chart(INSTALLED)
    service = the(rendered, "Service")
    assert ray_cluster(rendered)["gcsFaultToleranceOptions"] == {
        "redisAddress": f"{service['metadata']['name']}:{service['spec']['ports'][0]['port']}",
        "redisPassword": {"valueFrom": {"secretKeyRef": {"name": NAME, "key": "password"}}},
    }
    assert service["spec"]["selector"].items() <= pod()["metadata"]["labels"].items()


def test_the_head_finds_one_that_exists() -> None:
    address = {"redis": {"address": "rediss://redis.example.com:6380"}}
    rendered = render_chart(address)
    assert ray_cluster(rendered)["gcsFaultToleranceOptions"] == {"redisAddress": "rediss://redis.example.com:6380"}
    assert of_kind(rendered, "StatefulSet") == {}
    address["redis"]["existingSecret"] = "our-redis"
    assert ray_cluster(render_chart(address))["gcsFaultToleranceOptions"]["redisPassword"] == {
        "valueFrom": {"secretKeyRef": {"name": "our-redis", "key": "password"}}
    }


def test_no_storage_namespace_is_shared_by_two_clusters() -> None:
    """KubeRay's default is the RayCluster's own; another would have a new cluster wake up in the old one's state."""
    assert "externalStorageNamespace" not in str(ray_cluster(render_chart(INSTALLED)))


def test_an_uninstall_waits_a_minute_for_the_installed_one_and_no_other() -> None:
    def annotations(redis: dict[str, Any]) -> Any:
        return the(render_chart({"redis": redis}), "RayService")["metadata"].get("annotations")

    assert annotations({"enabled": True}) == {"ray.io/gcs-ft-deletion-timeout": "60"}
    assert annotations({"address": "redis:6379"}) is None


def test_its_user_owns_the_volume() -> None:
    assert pod()["spec"]["securityContext"].items() >= {"runAsUser": 999, "fsGroup": 999}.items()


def test_it_reads_its_configuration_from_a_file_and_keeps_its_data_on_a_volume() -> None:
    container = pod()["spec"]["containers"][0]
    assert container["command"] == ["redis-server", "/etc/redis/redis.conf"]
    assert {one["mountPath"]: one.get("readOnly", False) for one in container["volumeMounts"]} == {
        "/data": False,
        "/etc/redis": True,
    }
    settings = dict(line.split(" ", 1) for line in secret(render_chart(INSTALLED))["redis.conf"].splitlines())
    assert settings.items() >= {"dir": "/data", "appendonly": "yes", "maxmemory-policy": "noeviction"}.items()


def test_the_password_is_random_and_stands_in_the_secret_only() -> None:
    rendered = render_chart(INSTALLED)
    password = secret(rendered)["password"]
    assert len(password) == 48
    assert f"requirepass {password}\n" in secret(rendered)["redis.conf"]
    assert password not in str([one for one in rendered if one["kind"] != "Secret"])
    assert password != secret(render_chart(INSTALLED, namespace="other"))["password"]


def test_its_volume_goes_with_the_release() -> None:
    stateful = the(render_chart(INSTALLED), "StatefulSet")["spec"]
    assert stateful["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Delete"
    (claim,) = stateful["volumeClaimTemplates"]
    assert claim["spec"] == {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}


def test_its_values_reach_it() -> None:
    redis = {
        "enabled": True,
        "priorityClassName": "high",
        "image": "registry.example.com/redis:8",
        "resources": {"limits": {"memory": "1Gi"}},
        "storage": {"size": "5Gi", "className": "fast"},
    }
    stateful = the(render_chart({"redis": redis}), "StatefulSet")["spec"]
    assert stateful["template"]["spec"]["priorityClassName"] == "high"
    container = stateful["template"]["spec"]["containers"][0]
    assert container["image"] == "registry.example.com/redis:8"
    assert container["resources"]["limits"] == {"memory": "1Gi"}
    claim = stateful["volumeClaimTemplates"][0]["spec"]
    assert (claim["resources"]["requests"]["storage"], claim["storageClassName"]) == ("5Gi", "fast")


def test_an_upgrade_of_the_chart_leaves_its_pod_as_it_is() -> None:
    assert pod()["metadata"]["labels"] == {
        "app.kubernetes.io/instance": "llm-serving",
        "app.kubernetes.io/component": "redis",
    }


def test_an_upgrade_keeps_the_password(kube_apiserver: ApiServer, tmp_path: Path) -> None:
    kube_apiserver.kubectl("create", "namespace", "redis-kept")
    installed = [of_kind(render_chart(INSTALLED), "Secret")[NAME]]
    kube_apiserver.kubectl("create", "-f", "-", objects=installed, namespace="redis-kept")
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(kube_apiserver.kubectl("config", "view", "--raw", "--flatten", namespace="redis-kept"))
    arguments = ("--is-upgrade", "--dry-run=server", f"--kubeconfig={kubeconfig}")
    printed = helm("template", "llm-serving", str(CHART), *arguments, values=INSTALLED)
    assert secret([one for one in yaml.safe_load_all(printed) if one]) == secret(installed)
